"""Exports on the Hugging Face hub, from where `timm.create_model("hf-hub:USER/NAME")` loads them."""

from pathlib import Path

from ssl_adapt.errors import UserError
from ssl_adapt.export.timm import CARD
from ssl_adapt.json_text import one_line


def push_folder(folder: Path, repository: str, *, private: bool) -> list[str]:
    """Upload all files of a folder in one commit; lines that say where to, and what was left alone.

    The repository is made if there is none. A model card that it has already stays as it is, as people write in it.

    Args:
        folder: what `export_timm` wrote.
        repository: USER/NAME, or ORGANISATION/NAME.
        private: whether a repository that is made here can be seen by its owner alone.

    Raises:
        ValueError: if the hub can't be reached or refuses; the message has its reason.
    """
    from huggingface_hub import HfApi  # seconds to import, and needed here alone

    hub = HfApi(library_name="ssl_adapt")
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        has_card = hub.file_exists(repository, CARD)
        commit = hub.upload_folder(
            repo_id=repository, folder_path=folder, ignore_patterns=[CARD] if has_card else None,
            commit_message="Upload an export of ssl_adapt",
        )  # fmt: skip
    except Exception as error:  # of the hub, of HTTP and of the system, which have no common class
        raise UserError(
            f"push={repository}: {one_line(error)[:300]}; 'hf auth login' logs in, and the token must allow writing"
        ) from error
    lines = [f"pushed: {commit.commit_url}"]
    if has_card:
        lines.append(f"the model card there was left as it is: remove {CARD} there to have it written anew")
    return lines
