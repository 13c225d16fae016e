"""Loads the backbone that a spec asks for."""

import json
from dataclasses import replace
from hashlib import sha256

from asap.backbones.frame_encoder import frame_encoder
from asap.backbones.llava.checkpoint import load_llava
from asap.backbones.weights.fit import Fitted
from asap.backbones.weights.load import Loaded, load, weights_digest
from asap.errors import RequestError
from asap.measure.in_memory import Backbone
from asap.spec.run_spec import LLAVA, BackboneSpec


def backbone_for(spec: BackboneSpec, seed: int, reads: str | None) -> Backbone:
    """The backbone, on the CPU; reads: what the head of videos reads of it, None without one.

    RequestError for weights that are missing or do not fit.
    """
    if spec.name == LLAVA:
        return _llava(spec)
    loaded = load(
        spec.name, spec.weights, spec.sha256, spec.model_args, seed, spec.preprocess, spec.ema
    )
    # The digest is computed now, because `Backbone.on` may change the precision of these weights.
    digest = weights_digest(loaded.model)
    if reads is not None:
        loaded = replace(loaded, model=frame_encoder(loaded.model, reads))
    return Backbone(loaded, digest)


def _llava(spec: BackboneSpec) -> Backbone:
    """A vision-language model; its tower is the backbone that methods reduce."""
    others = [f"preprocess.{name}" for name in spec.preprocess if name not in ("picture", "anyres")]
    others += [f"model_args.{name}" for name in spec.model_args]
    others += ["ema"] if spec.ema is not None else []
    if others:
        raise RequestError(
            f"backbone.{others[0]} is not for backbone=llava, whose folder states it: leave it out"
        )
    picture = spec.preprocess.get("picture", "pad")
    anyres = spec.preprocess.get("anyres")
    llava = load_llava(spec.weights, sha256=spec.sha256, picture=picture, anyres=anyres)
    digest = sha256(json.dumps(dict(llava.digests), sort_keys=True).encode()).hexdigest()
    return Backbone(Loaded(llava.tower, llava.file, Fitted(), {}, None), digest, llava)
