"""What the paper reports: average accuracy in %, standard deviation in %, cost in GPU hours.

Source: the paper, Tables 1-4. Table 4 has kNN of one run each, without deviation or cost.
"""

from typing import NamedTuple


class Reported(NamedTuple):
    """One row of the paper; None where it has no number."""

    average: float
    std: float | None = None
    hours: float | None = None


TABLES: dict[int, dict[tuple[str, str], Reported]] = {
    1: {
        ("ResNet20", "Original"): Reported(91.66, 0.16, 8),
        ("ResNet20", "NAT"): Reported(55.78, 42.34, 14),
        ("ResNet20", "Cell"): Reported(93.29, 0.11, 11.2),
        ("ResNet20", "Full"): Reported(93.12, 0.12, 8.7),
        ("MobileNetV2", "Original"): Reported(93.91, 0.12, 20.5),
        ("MobileNetV2", "NAT"): Reported(91.97, 5.10, 27.8),
        ("MobileNetV2", "Cell"): Reported(95.02, 0.31, 24.8),
        ("MobileNetV2", "Full"): Reported(94.93, 0.13, 22.1),
        ("DARTS", "Original"): Reported(96.75, 0.11, 38.3),
        ("DARTS", "NAT"): Reported(96.95, 0.09, 47),
        ("DARTS", "Cell"): Reported(96.97, 0.15, 45),
        ("DARTS", "Full"): Reported(96.82, 0.13, 41.1),
        ("ProxylessNAS", "Original"): Reported(94.19, 1.08, 15.3),
        ("ProxylessNAS", "Full"): Reported(95.09, 0.23, 19.8),
    },
    3: {
        ("ResNet20", "Original"): Reported(50.72, 0.41, 16.1),
        ("ResNet20", "Cell"): Reported(52.86, 0.49, 22),
        ("ResNet20", "Full"): Reported(52.7118, 0.23, 17.5),
        ("MobileNetV2", "Original"): Reported(51.57, 0.76, 20.3),
        ("MobileNetV2", "Cell"): Reported(53.17, 1.03, 25.5),
        ("MobileNetV2", "Full"): Reported(52.92, 0.50, 23.7),
        ("DARTS", "Original"): Reported(59.25, 0.44, 39.2),
        ("DARTS", "Cell"): Reported(60.24, 0.35, 47),
        ("DARTS", "Full"): Reported(60.63, 0.50, 43.8),
    },
    4: {
        ("ResNet50", "Original"): Reported(82.39),
        ("ResNet50", "Full"): Reported(86.8),
        ("DARTS", "Original"): Reported(88.56),
        ("DARTS", "Full"): Reported(89.04),
    },
}

# Table 2: the accuracy of seeds 1 to 5.
SEEDS: dict[tuple[str, str], tuple[float, ...]] = {
    ("ResNet20", "Original"): (91.74, 91.74, 91.65, 91.76, 91.39),
    ("ResNet20", "NAT"): (10, 75.14, 91.05, 10, 92.68),
    ("ResNet20", "Cell"): (93.21, 93.34, 93.4, 93.15, 93.37),
    ("ResNet20", "Full"): (93.07, 93.26, 93.22, 93.06, 92.97),
    ("MobileNetV2", "Original"): (93.9, 94.04, 93.95, 93.95, 93.72),
    ("MobileNetV2", "NAT"): (83.36, 95.13, 94.95, 91.18, 95.21),
    ("MobileNetV2", "Cell"): (94.57, 94.97, 95.41, 94.97, 95.18),
    ("MobileNetV2", "Full"): (95.13, 94.81, 94.85, 95, 94.85),
}
