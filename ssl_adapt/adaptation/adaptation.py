"""Adaptation: turns a plain network into an adapted one while its weights train."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from ssl_adapt.adaptation.architecture import (
    Architecture,
    check_edge_names,
    check_own_modules,
    chosen_module,
    edge_specs,
    model_args,
    model_name,
    replace_module,
)
from ssl_adapt.adaptation.candidate import NoneRule, choose_candidate, one_hot
from ssl_adapt.adaptation.edge import Choice, EdgeSpec, MixedEdge, ShapeChange, fold_scale
from ssl_adapt.adaptation.passes import theta_alone, theta_too
from ssl_adapt.adaptation.reachability import OnDead, check_dead_nodes
from ssl_adapt.adaptation.sharing import Sharing, check_cells_agree, check_choices, group_name
from ssl_adapt.errors import UserError

Scale = Literal["one", "fold"]

UNDO = (
    "go back to a theta from before (load_state_dict), lower its learning rate, and leave out steps whose loss or "
    "gradient is not finite"
)
START = (0.0, 0.0, 1.0)  # theta (none, identity, same) at which the mixed network is the plain one to the bit


@dataclass(frozen=True)
class EdgeState:
    """What an edge's theta says: for tables and logs. While annealing it is the theta that annealing began with.

    Where theta is not finite, the choice means nothing; `Adaptation.derive` and `fix` refuse it.
    """

    spec: EdgeSpec
    theta: tuple[float, float, float]
    choice: Choice


class Adaptation:
    """Makes a network's edges mixed, owns theta, and fixes the architecture that theta chose.

    Args:
        model: a plain network that declares its edges, on the device where it will train; it is changed in place.
        sharing: "full" gives each edge its own theta; "cell" gives one theta to the edges at the same
            place of cells of the same type.
        shape_change: what the identity is at an edge whose output has another shape than its input: "pad"
            (subsample, zero-pad or cut channels), "project" (a learnt 1x1 convolution) or "forbid".
        none_rule: when a none edge becomes the identity: "literal" compares with theta_same, which stays
            at 1 there because zero has no gradient; "threshold" asks whether theta_id > none_threshold.
        none_threshold: see `none_rule`.
        none_start: theta_id of none edges at the start. Above 0 the mixed network begins with these skips there,
            scaled, and theta has to take away what does not help.
        choices: what `fix` makes of each edge whatever theta says, by name, others staying as they are: a control
            for what theta would choose. None lets theta choose.
        only: the edges that are made mixed, by name; the others stay what they are, adapted or not. None: all.
        followers: networks like it that see the same theta and are fixed with it, such as a teacher; changed too.
        on_dead: what `fix` does about a node that only none edges enter: "error" refuses it, "warn" says so.

    Raises:
        ValueError: if the network declares no edges, is mixed, or was adapted at one of them; if its cells differ and
            so can't share theta, an edge's module has another name too, or a follower has other edges; if an argument
            is none of the words above, or `choices` or `only` name an edge or a candidate that is not there, or edges
            that share theta. The network then stays as it was.

    Source: the paper, section "Methodology"; "threshold", "project" and `none_start` are ours.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sharing: Sharing = "full",
        shape_change: ShapeChange = "pad",
        none_rule: NoneRule = "literal",
        none_threshold: float = 0.0,
        none_start: float = 0.0,
        on_dead: OnDead = "warn",
        choices: Mapping[str, Choice] | None = None,
        only: Sequence[str] | None = None,
        followers: Sequence[nn.Module] = (),
    ) -> None:
        for name, value, words in (
            ("sharing", sharing, get_args(Sharing)),
            ("shape_change", shape_change, get_args(ShapeChange)),
            ("none_rule", none_rule, get_args(NoneRule)),
            ("on_dead", on_dead, get_args(OnDead)),
        ):
            if value not in words:
                raise UserError(f"{name}={value!r} is not one of {', '.join(words)}")
        self.model = model
        declared = edge_specs(model)
        if only is not None:
            check_edge_names(only, (spec.name for spec in declared))
        self.edges = tuple(spec for spec in declared if only is None or spec.name in only)
        self.shape_change = shape_change
        self.none_rule = none_rule
        self.none_threshold = none_threshold
        self.on_dead = on_dead
        self._given = choices
        if choices is not None:
            check_choices(choices, self.edges, sharing, shape_change)
        self.before = Architecture.of(model)
        if {spec.name for spec in self.edges} & self.before.changed.keys():
            raise UserError("this network was adapted before; start from a plain one")
        if any(edge_specs(follower) != declared for follower in followers):
            raise UserError("a follower has other edges: make it by copy.deepcopy(model)")
        check_own_modules(model, self.edges)
        self._group_of = {spec.name: group_name(spec, sharing, shape_change) for spec in self.edges}
        if sharing == "cell":
            check_cells_agree(self.edges, self._group_of, model_name(model))
        device = next(model.parameters()).device
        starts = {self._group_of[s.name]: (0.0, none_start, 1.0) if s.kind == "none" else START for s in self.edges}
        self.theta: dict[str, nn.Parameter] = {
            group: nn.Parameter(torch.tensor(start, device=device), requires_grad=False)
            for group, start in starts.items()
        }
        self._anneal_start: dict[str, Tensor] | None = None
        self._followers = tuple(followers)
        self._mixed = [{spec.name: self._mix(network, spec) for spec in self.edges} for network in self._networks]
        for edges in self._mixed[1:]:
            for name, edge in edges.items():  # a learnt identity starts alike everywhere
                if edge.identity is not None:
                    edge.identity.load_state_dict(cast(nn.Module, self._mixed[0][name].identity).state_dict())
                    edge.identity.requires_grad_(False)

    def theta_parameters(self) -> list[nn.Parameter]:
        """One parameter of shape (3,) = (none, identity, same) for each group of edges, for theta's optimiser."""
        return list(self.theta.values())

    def weight_parameters(self) -> list[nn.Parameter]:
        """The network's weights, for the weights' optimiser; theta is not among them."""
        return list(self.model.parameters())

    def architecture_pass(self, *others: nn.Module, update_bn: bool = False) -> AbstractContextManager[None]:
        """A context in which backward gives gradients to theta alone.

        The weights rest, so that no gradient is computed for them; BatchNorm normalises with the batch, as in
        the weights' pass, but leaves its running statistics alone.

        Args:
            others: further modules on the way to the loss (a projector, say) whose weights rest as well.
            update_bn: let this pass move BatchNorm's running statistics too.
        """
        return theta_alone(self.theta_parameters(), (self.model, *others), update_bn=update_bn)

    def joint_pass(self) -> AbstractContextManager[None]:
        """A context in which one forward and one backward give the weights' gradients and theta's.

        Theta's are those that `architecture_pass` gives for the same images and weights, so no second pass is made.
        Deviation from the paper, which takes them after the weights' step: both steps start from the same weights.

        Distributed: theta is no parameter of the network, so what wraps it, such as DDP, doesn't average theta's
            gradients; average them over the processes before theta's step.
        """
        return theta_too(self.theta_parameters())

    def states(self) -> list[EdgeState]:
        """Every edge with its theta and the choice that it means, in forward order."""
        deciding = self._anneal_start or self.theta
        values = {group: cast(tuple[float, float, float], tuple(t.tolist())) for group, t in deciding.items()}
        return [
            EdgeState(spec, theta := values[self._group_of[spec.name]], self._choice(spec, theta))
            for spec in self.edges
        ]

    def derive(self) -> Architecture:
        """The architecture that theta means now; the network stays mixed.

        Raises:
            ValueError: if theta is not finite anywhere: no candidate is the largest then.
        """
        self._check_finite(self.theta, UNDO)
        states = self.states()
        edges = {**self.before.edges, **{state.spec.name: state.choice for state in states}}
        identities = any(state.choice == "identity" and state.spec.changes_shape for state in states)
        projects = self.shape_change == "project" and identities
        return Architecture(model_name(self.model), model_args(self.model), edges, "project" if projects else "pad")

    def choose(self, choices: Mapping[str, Choice]) -> None:
        """From now on these are the choices, as if the argument `choices` had given them.

        Raises:
            ValueError: if they name an edge or a candidate that is not there.
        """
        check_choices(choices, self.edges, "full", self.shape_change)
        self._given = choices

    def anneal(self, fraction: float) -> None:
        """Move theta to `fraction` (0..1) of the way from where the first call found it to its one-hot choice.

        At 1 the mixed network computes what the fixed one will, so that `fix` changes nothing.

        Raises:
            ValueError: if `fraction` is outside 0..1, or theta is not finite at the first call; it stays as it was.
        """
        if not 0 <= fraction <= 1:
            raise UserError(f"fraction={fraction!r} is not in 0..1, the share of the way to the one-hot choice")
        if self._anneal_start is None:
            self._check_finite(self.theta, UNDO)
            self._anneal_start = {group: theta.detach().clone() for group, theta in self.theta.items()}
        specs = {self._group_of[spec.name]: spec for spec in self.edges}  # one of each group speaks for all
        with torch.no_grad():
            for group, start in self._anneal_start.items():
                target = start.new_tensor(one_hot(self._choice(specs[group], tuple(start.tolist()))))
                self.theta[group].copy_(torch.lerp(start, target, fraction))

    def fix(self, scale: Scale = "one") -> Architecture:
        """Replace every mixed edge by its chosen candidate, in place, and return the choices.

        Args:
            scale: "one" drops theta, so that the kept operation counts once; "fold" multiplies theta_same into
                the BatchNorm that ends the kept operation. Identities and operations without a BatchNorm at
                their end have nowhere to put it and are kept with scale one.

        Raises:
            ValueError: if `scale` is another word, the network was fixed before, theta is not finite, or there are
                dead nodes and `on_dead` is "error"; the network then stays mixed.
        """
        if scale not in get_args(Scale):
            raise UserError(f"scale={scale!r} is not one of {', '.join(get_args(Scale))}")
        if not self._mixed:
            raise UserError("this network was fixed before")
        architecture = self.derive()
        check_dead_nodes(edge_specs(self.model), architecture.edges, self.on_dead)
        states = self.states()
        for network, edges in zip(self._networks, self._mixed, strict=True):
            for state in states:
                spec, edge = state.spec, edges[state.spec.name]
                if scale == "fold" and state.choice == "original":
                    fold_scale(edge.operation, self.theta[self._group_of[spec.name]][2])
                module = chosen_module(spec, edge.operation, state.choice, self.shape_change, edge.identity)
                replace_module(network, spec.name, module)
        self._mixed = []
        return architecture

    def state_dict(self) -> dict[str, Any]:
        """Theta and, during annealing, where it came from."""
        theta = {group: value.detach().clone() for group, value in self.theta.items()}
        return {"theta": theta, "anneal_start": self._anneal_start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: if it comes from a network with other edges, or is not finite; theta then stays as it was.
        """
        if set(state["theta"]) != set(self.theta):
            raise UserError("this theta belongs to a network with other edges, or to another sharing")
        start = state["anneal_start"]
        for theta in (state["theta"], start or {}):
            self._check_finite(theta, "load a state from before it was")
        with torch.no_grad():
            for group, value in state["theta"].items():
                self.theta[group].copy_(value)
        device = self.theta_parameters()[0].device
        self._anneal_start = start and {group: value.to(device) for group, value in start.items()}

    def _check_finite(self, theta: Mapping[str, Tensor], remedy: str) -> None:
        """Refuse theta, by group, that is NaN or infinite anywhere, naming the edges."""
        broken = {group: values.tolist() for group, values in theta.items() if not values.isfinite().all()}
        edges = [spec.name for spec in self.edges if self._group_of[spec.name] in broken]
        if edges:
            named = ", ".join(f"'{name}'" for name in edges[:4]) + (", ..." if len(edges) > 4 else "")
            values = broken[self._group_of[edges[0]]]
            raise UserError(f"theta is not finite at {len(edges)} edge(s): {named} (the first is {values}); {remedy}")

    @property
    def _networks(self) -> tuple[nn.Module, ...]:
        return self.model, *self._followers

    def _mix(self, network: nn.Module, spec: EdgeSpec) -> MixedEdge:
        operation = network.get_submodule(spec.name)
        edge = MixedEdge(spec, operation, self.theta[self._group_of[spec.name]], self.shape_change)
        edge.training = operation.training
        if edge.identity is not None:
            weight = next(network.parameters())
            edge.identity.to(weight.device, weight.dtype).train(operation.training)
        replace_module(network, spec.name, edge)
        return edge

    def _choice(self, spec: EdgeSpec, theta: tuple[float, ...]) -> Choice:
        if self._given is not None:
            return self._given.get(spec.name, "original")
        return choose_candidate(spec, theta, self.shape_change, self.none_rule, self.none_threshold)
