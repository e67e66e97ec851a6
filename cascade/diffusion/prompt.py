"""The empty prompt's embedding, stored with the texture model so that no text encoder is needed."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class EmptyPrompt(ModelMixin, ConfigMixin):
    """A constant (1, tokens, width): what the base model's text encoder makes of "" (77 × 768 in SD-1.5).

    A model without a text encoder, like the embedded one, carries zeros of its UNet's width.
    """

    @register_to_config
    def __init__(self, tokens: int = 1, width: int = 32):
        super().__init__()
        self.embedding = torch.nn.Parameter(torch.zeros(1, tokens, width), requires_grad=False)

    @classmethod
    def of(cls, embedding: torch.Tensor) -> "EmptyPrompt":
        """From an embedding (1, tokens, width)."""
        prompt = cls(*embedding.shape[1:])
        prompt.embedding.data.copy_(embedding)
        return prompt

    def forward(self, batch_size: int) -> torch.Tensor:
        """(batch_size, tokens, width)."""
        return self.embedding.expand(batch_size, -1, -1)
