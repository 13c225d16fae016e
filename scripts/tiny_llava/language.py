"""Projector and language model: what they learn, and how they answer."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from tiny_llava.scenes import BACKGROUND, Scenes
from tiny_llava.tower import patch_targets
from tiny_llava.turns import PREFIX, Turns


class LanguageTraining(nn.Module):
    """Projector, decoder and word head of a LLaVA, on features of the frozen tower."""

    def __init__(self, model: LlavaForConditionalGeneration):
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.decoder = model.model.language_model
        self.words = model.lm_head

    def forward(self, rows: Tensor, turns: Turns) -> Tensor:
        """Logits (j, vocabulary) where answers are read: rows of pictures (b, n, width) and the
        prompts after them.
        """
        embed = self.decoder.embed_tokens
        prefix = embed(torch.tensor(PREFIX)).expand(len(rows), -1, -1)
        inputs = torch.cat([prefix, self.projector(rows.float()), embed(turns.ids)], 1)
        hidden = self.decoder(
            inputs_embeds=inputs,
            attention_mask=turns.sees,
            position_ids=turns.positions,
            use_cache=False,
        ).last_hidden_state
        return self.words(hidden[turns.asked, turns.at])

    def loss(self, rows: Tensor, turns: Turns) -> Tensor:
        return F.cross_entropy(self(rows, turns), turns.answers)

    @torch.no_grad()
    def right(self, rows: Tensor, turns: Turns) -> Tensor:
        """Which answers are right, (j / 2,) bool: greedy decoding gives the word, then EOS."""
        found = self(rows, turns).argmax(-1) == turns.answers
        return found.view(-1, 2).all(1)


def start(training: LanguageTraining, rows: Tensor, scenes: Scenes) -> None:
    """Weights to start from, in place: linear layers keep the size of what they get.

    The projector's first hidden units say what the tower's rows (n, 64, width) of the `scenes` were
    trained to say, each once as it is and once negated, of about unit size. It is random otherwise.
    """
    for module in training.modules():
        if isinstance(module, nn.Linear) and module is not training.words:
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # As large as the rows of pictures: by default what the first layer adds would drown the words.
    nn.init.normal_(training.decoder.embed_tokens.weight, std=0.7)
    for layer in training.decoder.layers:  # what every layer adds is small at first
        for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
            with torch.no_grad():
                module.weight.mul_((2 * len(training.decoder.layers)) ** -0.5)
    flat = rows.float().flatten(0, 1)
    weight, bias = meanings(flat, scenes)
    first = training.projector.linear_1
    with torch.no_grad():
        first.weight.div_(flat.std(0))
        first.bias.copy_(-first.weight @ flat.mean(0))
        first.weight[: 2 * len(bias)] = torch.cat([weight, -weight])
        first.bias[: 2 * len(bias)] = torch.cat([bias, -bias])


def meanings(rows: Tensor, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Linear functions of rows (64 n, width): weights (k, width) and biases (k,).

    By least squares they say what a patch shows (11), where it is (2), and where the digit's centre
    is and how large it is (3), the latter being 0 on the background; each divided by its deviation.
    """
    shown = torch.from_numpy(scenes.patches.astype("int64"))
    places, digits = patch_targets(scenes, np.arange(len(scenes)))
    on_digit = (shown != BACKGROUND)[..., None]
    targets = [F.one_hot(shown, 11), places.expand(len(shown), -1, -1), digits * on_digit]
    wanted = torch.cat([target.double() for target in targets], -1).flatten(0, 1)
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    middle = rows.double().mean(0)
    weight = torch.linalg.lstsq(rows.double() - middle, wanted).solution.T
    return weight.float(), -(weight @ middle).float()
