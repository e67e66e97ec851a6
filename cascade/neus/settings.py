"""How a field is fitted to views."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NeuSSettings:
    """How a field is fitted. The defaults are the fast field's; `faithful()` are SyncDreamer's for NeuS."""

    field: str = "grid"
    """"grid": an SDF on nodes that starts as the visual hull. "mlp": NeuS's network, which starts as a sphere."""
    nodes: int = 33
    steps: int = 60
    rays: int = 512
    samples: int = 32
    importance_samples: int = 0
    upsampling_steps: int = 0
    learning_rate: float = 8e-3
    adam_eps: float = 1e-3
    """Large, so that nodes whose gradient is mere noise stay where they are."""
    warm_up: int = 0
    mask_weight: float = 1.0
    eikonal_weight: float = 0.1
    smooth_weight: float = 2e-2
    first_sharpness: float = 30.0
    last_sharpness: float = 90.0
    learn_sharpness: bool = False
    """NeuS's s-density: every cell's sharpness is a parameter that starts at `first_sharpness`, and views are compared
    as sharp silhouettes. Else it grows on a schedule, and views are blurred alike."""
    max_residual: float = 0.1
    """A cell whose mean 1 − IoU over the views is larger has not converged."""

    def __post_init__(self) -> None:
        if self.field not in ("grid", "mlp"):
            raise ValueError(f'field must be "grid" or "mlp", got {self.field!r}')

    @classmethod
    def faithful(cls, steps: int = 2000) -> "NeuSSettings":
        """SDF network 8 × 256, 64 + 64 samples in 4 up-sampling steps, eikonal 0.1, mask 1.0, lr 5e-4, learned s."""
        return cls(
            field="mlp",
            steps=steps,
            rays=512,
            samples=64,
            importance_samples=64,
            upsampling_steps=4,
            learning_rate=5e-4,
            adam_eps=1e-8,
            warm_up=min(100, steps // 4),
            smooth_weight=0.0,
            first_sharpness=20.0,
            learn_sharpness=True,
        )
