"""Wrong arguments of the commands, each a row of docs/bad_input.md: see bad_inputs.py."""

# of `pretrain recipe=debug`
ARGUMENTS = [
    "train.epoch=3", "train.epochs=three", "train.lr=-1", "adapt.sharing=ful", "seed=1 seed=1", "quick", "train.lr=[1",
    "adapt.epochs=3", "adapt=null adapt.epochs=3", "train.optimizer=sgd", "train.accumulate=65", "model.name=resnet2O",
    "data.name=cifar_10", "data.name=folder", "data.batch_size=1298", "knn.k=1298",
    "model.pretrained=true", "model.pretrained=true model.weights=a.pth", "model.weights=resnet18",
    "model.weights=resnet2O",
]  # fmt: skip

# of the same, about scores, budgets and edges
SHRINK = [
    "adapt.budget_macs=1.5", "adapt.budget_macs=0.7 adapt.budget_latency=0.7", "adapt.score=random",
    "adapt.score=taylor", "adapt.score=taylor adapt.budget_macs=0.7 adapt.none_start=1",
    "adapt.score=removal adapt.rounds=3", "adapt.budget_macs=0.7 adapt.rounds=3",
    "adapt.score=removal adapt.score_batches=1", "adapt.score=removal adapt.shape_change=project",
    'adapt.score=removal adapt.choices={"layer1.0.conv1":"identity"}',
    "adapt.theta_pass=joint adapt.theta_batch=next", "adapt.theta_pass=joint adapt.theta_updates_bn=true",
    "adapt.granularity=operation model.name=convnext_atto model.args={}", "adapt.granularity=branch model.name=darts",
    "adapt.granularity=branch model.args.granularity=block",
    "adapt.granularity=branch adapt.score=removal adapt.budget_macs=0.1",
    "adapt.granularity=branch adapt.score=uniform adapt.budget_parameters=0.05",
    "adapt.score=gradmax", "adapt.score=removal adapt.start_share=0.3",
    "adapt.score=random adapt.start_share=0.8 adapt.budget_macs=0.7",
    "adapt.score=gradmax adapt.start_share=0.3 adapt.sharing=cell",
    "adapt.score=gradmax adapt.start_share=0.3 model.weights=a.pth",
    "adapt.granularity=branch adapt.score=gradmax adapt.start_share=0.1",
]  # fmt: skip

# of `pretrain recipe=debug` again, whose model.args are given
GIVEN = ["model.args.pretrained=true", "model.args.checkpoint_path=a.pth"]

# of `linear`
LINEAR = [
    "model=EXPORT data=digits epochs=3", "model=EXPORT data=digits labelled_share=0.001",
    "model=EXPORT data=digits labelled_share=2", "model=EXPORT data=digits protocol=sdg",
    "model=EXPORT data=folder root=DATA",
]  # fmt: skip

# of `export`
HAND_ON = [
    "model=EXPORT", "model=EXPORT out=EXPORT", "model=EXPORT out=a.onnx format=torch_export",
    "model=EXPORT out=a.onnx plain=true", "model=EXPORT out=other normalize=true", "model=EXPORT out=none/a.onnx",
    "model=EXPORT out=other private=true", "model=EXPORT push=me", "model=zzz out=other",
]  # fmt: skip

# of `knn`
SCORES = [
    "model=EXPORT/config.json data=digits", "model=zzz data=digits", "model=my/net data=digits", "model=EXPORT",
    "model=EXPORT data=digits k=1298", "model=EXPORT data=digits device=abacus", "model=EXPORT data=folder",
    "model=EXPORT data=digits protocol=plain temperature=0.1", "model=EXPORT data=digits search=ivf",
]  # fmt: skip
