"""Bad options of every method: one clear line with the option, its value and what is allowed."""

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from peers import model, predictor_file

import asap
from asap.errors import RequestError
from asap.methods import EViT, Method, ToMe, build
from asap.methods.registry import find

NAN, INF = math.nan, math.inf
# Method, options, what the line says after "method '...': ". The last option is the bad one.
IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    ("random_drop", {"keep": 0.0}, "keep=0.0|in (0, 1]"),
    ("random_drop", {"keep": -INF}, "keep=-inf|in (0, 1]"),
    ("random_drop", {"keep": NAN}, "keep=nan|in (0, 1]"),
    ("random_drop", {"keep": 1.01}, "keep=1.01|in (0, 1]"),
    ("random_drop", {"block": -1}, "block=-1|at least 0"),
    ("random_drop", {"seed": -1}, "seed=-1|at least 0"),
    ("tome", {"r": -1}, "r=-1|at least 0"),
    ("tome", {"r": [2, -1, 3]}, "r=(2, -1, 3)|at least 0"),
    ("tome", {"r": [8, NAN]}, "r=(8, nan)|[-1, 1]"),
    ("tome", {"r": [8, 1.5]}, "r=(8, 1.5)|[-1, 1]"),
    ("tome", {"r": [INF, 0.0]}, "r=(inf, 0.0)|a whole number"),
    ("tome", {"r": [8.5, 0.5, 1.0]}, "r=(8.5, 0.5, 1.0)|whole number"),
    ("tome", {"tokens": 0}, "tokens=0|at least 1"),
    ("tome", {"r": 8, "tokens": 9}, "tokens=9|None beside r"),
    ("ppt", {"r": -1}, "r=-1|at least 0"),
    ("ppt", {"r": [5, -5, 5]}, "r=(5, -5, 5)|at least 0"),
    ("ppt", {"threshold": -1e-9}, "threshold=-1e-09|at least 0"),
    ("ppt", {"threshold": NAN}, "threshold=nan|at least 0"),
    ("ppt", {"blocks": [3, -6]}, "blocks=(3, -6)|rising whole numbers, at least 0"),
    ("ppt", {"blocks": [3, 3]}, "blocks=(3, 3)|rising"),
    ("ppt", {"blocks": [6, 3]}, "blocks=(6, 3)|rising"),
    ("ppt", {"blocks": []}, "blocks=()|rising whole numbers"),
    ("ppt", {"r": []}, "r=()|whole number"),
    ("ats", {"samples": 0}, "samples=0|at least 1"),
    ("ats", {"samples": -5}, "samples=-5|at least 1"),
    ("ats", {"blocks": [-1, 3]}, "blocks=(-1, 3)|at least 0"),
    ("ats", {"blocks": [3, 3]}, "blocks=(3, 3)|different"),
    ("evit", {"keep_rate": 0.0}, "keep_rate=0.0|in (0, 1]"),
    ("evit", {"keep_rate": -0.1}, "keep_rate=-0.1|in (0, 1]"),
    ("evit", {"keep_rate": [0.7, 0.0, 0.7]}, "keep_rate=(0.7, 0.0, 0.7)|in (0, 1]"),
    ("evit", {"keep_rate": []}, "keep_rate=()|"),
    ("evit", {"blocks": [-1]}, "blocks=(-1,)|at least 0"),
    ("evit", {"keep_rate": 1.5}, "keep_rate=1.5|in (0, 1]"),
    ("evit", {"keep_rate": NAN}, "keep_rate=nan|in (0, 1]"),
    ("evit", {"keep_rate": [0.7, INF, 0.7]}, "keep_rate=(0.7, inf, 0.7)|in (0, 1]"),
    ("evit", {"blocks": [6, 3]}, "blocks=(6, 3)|rising"),
    ("visionzip", {"dominant": 0}, "dominant=0|at least 1"),
    ("visionzip", {"contextual": -1}, "contextual=-1|at least 0"),
    ("visionzip", {"block": 0}, "block=0|at least 1"),
    ("vispruner", {"tokens": 0}, "tokens=0|at least 1"),
    ("vispruner", {"important_ratio": 1.1}, "important_ratio=1.1|in [0, 1]"),
    ("vispruner", {"important_ratio": NAN}, "important_ratio=nan|in [0, 1]"),
    ("vispruner", {"per_round": 0}, "per_round=0|at least 1"),
    ("prunesid", {"tokens": 1}, "tokens=1|at least 2"),
    ("prunesid", {"seed": -1}, "seed=-1|at least 0"),
    ("dynamicvit", {"keep_rate": 0.0}, "keep_rate=0.0|in (0, 1]"),
    ("dynamicvit", {"keep_rate": 2.0}, "keep_rate=2.0|in (0, 1]"),
    ("dynamicvit", {"keep_rate": NAN}, "keep_rate=nan|in (0, 1]"),
    ("dynamicvit", {"keep_rate": [0.7, -1.0]}, "keep_rate=(0.7, -1.0)|in (0, 1]"),
    ("dynamicvit", {"blocks": [-3]}, "blocks=(-3,)|at least 0"),
    ("dynamicvit", {"blocks": [3, 2]}, "blocks=(3, 2)|rising"),
    ("zero_tprune", {"keep": 0.0}, "keep=0.0|in (0, 1]"),
    ("zero_tprune", {"keep": NAN}, "keep=nan|in (0, 1]"),
    ("zero_tprune", {"keep": 1.2}, "keep=1.2|in (0, 1]"),
    ("zero_tprune", {"keep": -0.5}, "keep=-0.5|in (0, 1]"),
    ("zero_tprune", {"keep": [1.0, 1.5, 1.0, 1.0, 1.0]}, "keep=(1.0, 1.5, 1.0, 1.0, 1.0)|(0, 1]"),
    ("zero_tprune", {"keep": [1.0, 0.9]}, "keep=(1.0, 0.9)|5, one for each layer"),
    ("zero_tprune", {"similar": -1}, "similar=-1|at least 0"),
    ("zero_tprune", {"similar": [1, 2, 3, 4, -5]}, "similar=(1, 2, 3, 4, -5)|at least 0"),
    ("zero_tprune", {"iterations": [1]}, "iterations=(1,)|5, one for each layer"),
    ("zero_tprune", {"layers": [3, 1, 6, 9, 11]}, "layers=(3, 1, 6, 9, 11)|ascending"),
    ("zero_tprune", {"layers": [1, 1, 6, 9, 11]}, "layers=(1, 1, 6, 9, 11)|ascending"),
    ("zero_tprune", {"low": 0.8}, "low=0.8|in [0, high=0.7]"),
    ("zero_tprune", {"low": -0.1}, "low=-0.1|in [0, high=0.7]"),
    ("zero_tprune", {"initial": "cls"}, "initial='cls'|one of class, uniform"),
    ("zero_tprune", {"iterations": 0}, "iterations=0|at least 1"),
    ("zero_tprune", {"layers": [0, 3]}, "layers=(0, 3)|at least 1"),
    ("zero_tprune", {"low": NAN}, "low=nan|in [0, high=0.7]"),
    ("zero_tprune", {"high": NAN}, "high=nan|at least 0"),
    ("zero_tprune", {"high": -1.0}, "high=-1.0|at least 0"),
    ("asap", {"tau": 0.0}, "tau=0.0|above 0"),
    ("asap", {"tau": -1}, "tau=-1.0|above 0"),
    ("asap", {"tau": NAN}, "tau=nan|above 0 and finite"),
    ("asap", {"tau": INF}, "tau=inf|above 0 and finite"),
    ("asap", {"alpha": NAN}, "alpha=nan|in (0, 1]"),
    ("asap", {"alpha": 0}, "alpha=0.0|in (0, 1]"),
    ("asap", {"alpha": -0.5}, "alpha=-0.5|in (0, 1]"),
    ("asap", {"alpha": 1.01}, "alpha=1.01|in (0, 1]"),
    ("asap", {"temperature": 0.0}, "temperature=0.0|above 0"),
    ("asap", {"temperature": -1.0}, "temperature=-1.0|above 0"),
    ("asap", {"temperature": INF}, "temperature=inf|above 0 and finite"),
    ("asap", {"clusters": 1}, "clusters=1|at least 2, or auto"),
    ("asap", {"clusters": "many"}, "clusters='many'|at least 2, or auto"),
    ("asap", {"clusters": "auto", "binning": "rank"}, "binning='rank'|width with"),
    ("asap", {"background": 0}, "background=0|in 1..3"),
    ("asap", {"background": 4}, "background=4|in 1..3"),
    ("asap", {"clusters": "auto", "background": 64}, "background=64|1..63"),
    ("asap", {"min_block": 0}, "min_block=0|at least 1"),
    ("asap", {"anchor": "class"}, "anchor='class'|one of sink, mass, random, pca, quiet"),
    ("asap", {"distance": "cosine"}, "distance='cosine'|one of diffusion, self_aligned"),
    ("asap", {"order": "forward"}, "order='forward'|one of walk, rollout"),
    ("asap", {"columns": "none"}, "columns='none'|one of patches, all"),
    ("asap", {"miss": "drop"}, "miss='drop'|one of dense, force"),
    ("asap", {"position": "before_block"}, "position='before_block'|after_attention, after_block"),
    ("asap", {"normalise": "l2"}, "normalise='l2'|one of minmax_others, max"),
    ("asap", {"binning": "kmeans"}, "binning='kmeans'|one of width, rank"),
    ("asap", {"distance_columns": "some"}, "distance_columns='some'|one of all, patches"),
    ("asap", {"weights": "soft"}, "weights='soft'|one of raw, normalised"),
    ("asap", {"max_tokens": 1}, "max_tokens=1|at least 2 with a pooled token"),
    ("asap", {"max_tokens": -5}, "max_tokens=-5|at least 2"),
    ("asap", {"pool": False, "max_tokens": 0}, "max_tokens=0|at least 1 without a pooled token"),
    ("asap", {"max_tokens": 8, "plugin": "values"}, "plugin='values'|diffusion, features, keys"),
    ("asap", {"plugin": "diffusion"}, "plugin='diffusion'|None without max_tokens"),
    ("asap", {"max_tokens": 8, "kappa": 4}, "kappa=4|None without plugin"),
    ("asap", {"max_tokens": 8, "plugin": "keys", "kappa": 8}, "kappa=8|in 0..7"),
    ("asap", {"max_tokens": 8, "plugin": "keys", "kappa": -1}, "kappa=-1|in 0..7"),
    ("asap", {"per_round": 0}, "per_round=0|at least 1"),
    ("asap", {"min_block": 5, "max_block": 3}, "max_block=3|at least min_block"),
    ("asap", {"anchor": "random", "seed": -1}, "seed=-1|at least 0"),
]
# The same, of values of a wrong type.
MISTYPED: list[tuple[str, dict[str, Any], str]] = [
    ("tome", {"r": 2.5}, "r=2.5|whole number"),
    ("tome", {"r": "8"}, "r='8'|whole number"),
    ("tome", {"r": True}, "r=True|whole number"),
    ("tome", {"proportional_attention": "yes"}, "proportional_attention='yes'|of type bool"),
    ("ppt", {"r": 2.5}, "r=2.5|whole number"),
    ("ppt", {"r": True}, "r=True|whole number"),
    ("ppt", {"blocks": [1.5]}, "blocks=(1.5,)|whole"),
    ("ats", {"samples": 2.5}, "samples=2.5|of type int"),
    ("ats", {"samples": True}, "samples=True|of type int"),
    ("ats", {"blocks": 3}, "blocks=3|whole numbers"),
    ("ats", {"blocks": "345"}, "blocks='345'|whole numbers"),
    ("ats", {"blocks": (1.5,)}, "blocks=(1.5,)|whole numbers"),
    ("ats", {"blocks": (True,)}, "blocks=(True,)|whole numbers"),
    ("evit", {"keep_rate": "0.7"}, "keep_rate='0.7'|in (0, 1]"),
    ("evit", {"keep_rate": True}, "keep_rate=True|"),
    ("evit", {"fuse": 1}, "fuse=1|of type bool"),
    ("dynamicvit", {"weights": 3}, "weights=3|of type str"),
    ("zero_tprune", {"keep": "half"}, "keep='half'|in (0, 1]"),
    ("zero_tprune", {"keep": None}, "keep=None|in (0, 1]"),
    ("zero_tprune", {"similar": 2.5}, "similar=2.5|whole"),
    ("zero_tprune", {"similar": True}, "similar=True|whole"),
    ("zero_tprune", {"layers": 3}, "layers=3|whole"),
    ("asap", {"alpha": "half"}, "alpha='half'|of type float"),
    ("asap", {"tau": True}, "tau=True|of type float"),
    ("asap", {"clusters": 2.5}, "clusters=2.5|of type int"),
    ("asap", {"pool": 1}, "pool=1|of type bool"),
    ("asap", {"max_tokens": 8.0}, "max_tokens=8.0|of type int"),
]
# The same, of options that do not fit a backbone of 8 blocks and 25 patches, 24 wide.
UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("random_drop", {"block": 8}, "block=8|below 8"),
    ("tome", {"r": 26}, "r=26|at most 25, the patches"),
    ("tome", {"r": [0, 26]}, "r=(0, 26)|at most 25, the patches"),
    ("tome", {"r": [13, -1.0]}, "r=(13, -1.0)|at most 25, the patches"),
    ("tome", {"r": [1] * 9}, "r=(1, 1, 1, 1, 1, 1, 1, 1, 1)|at most 8 numbers"),
    ("tome", {"tokens": 26}, "tokens=26|at most 25, the patches"),
    ("ppt", {"r": 26}, "r=26|at most 25, the patches"),
    ("ppt", {"r": [1, 2]}, "r=(1, 2)|a list of 3"),
    ("ppt", {"r": [1, 26, 1]}, "r=(1, 26, 1)|at most 25"),
    ("ppt", {"blocks": [2, 4], "r": [1, 2, 3]}, "r=(1, 2, 3)|a list of 2"),
    ("ppt", {"blocks": [3, 8]}, "blocks=(3, 8)|below 8"),
    ("ats", {"blocks": [3, 8]}, "blocks=(3, 8)|below 8"),
    ("evit", {"blocks": [8]}, "blocks=(8,)|below 8"),
    ("evit", {"keep_rate": [0.7, 0.7]}, "keep_rate=(0.7, 0.7)|a list of 3"),
    ("evit", {"blocks": [2], "keep_rate": [0.7] * 3}, "keep_rate=(0.7, 0.7, 0.7)|a list of 1"),
    ("visionzip", {"contextual": 1, "dominant": 26}, "dominant=26|at most 25, the class token and"),
    ("visionzip", {"dominant": 1, "contextual": 26}, "contextual=26|at most 25, the patches"),
    ("visionzip", {"dominant": 1, "contextual": 0}, "contextual=0|at least 1 with dominant=1"),
    ("visionzip", {"block": 9}, "block=9|at most 8, the blocks"),
    ("vispruner", {"tokens": 26}, "tokens=26|at most 25, the patches"),
    ("prunesid", {"tokens": 27}, "tokens=27|at most 26, the class token and 25 patches"),
    ("dynamicvit", {"weights": predictor_file(24), "blocks": [1, 8]}, "blocks=(1, 8)|below 8"),
    ("dynamicvit", {"weights": predictor_file(24), "keep_rate": 0.1}, "keep_rate=0.1|keep one of"),
    (
        "dynamicvit",
        {"weights": predictor_file(24), "keep_rate": [0.7, 0.7]},
        "keep_rate=(0.7, 0.7)|list of 3",
    ),
    ("zero_tprune", {"keep": 1.0, "iterations": 1, "layers": [3, 9]}, "layers=(3, 9)|at most 8"),
    ("zero_tprune", {"similar": 13}, "similar=13|at most 12, half of the patches, after block 1"),
    ("zero_tprune", {"keep": 0.1}, "keep=0.1|larger, to leave a patch after block 2"),
    ("asap", {"max_block": 9}, "max_block=9|at most 8"),
    ("asap", {"min_block": 8}, "min_block=8|at most 7"),
]


def is_clear(said: str, expected: str) -> None:
    """One line that names option, value and range."""
    setting, allowed = expected.split("|")
    name = setting.split("=")[0]
    assert "\n" not in said and f"{setting} is not possible: {name} must be " in said, said
    assert allowed in said.split("must be ")[1], said


@pytest.mark.parametrize(("name", "options", "expected"), IMPOSSIBLE)
def test_impossible_values(name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(RequestError) as refused:
        build(name, options)
    assert str(refused.value).startswith(f"method {name!r}: ")
    is_clear(str(refused.value), expected)


@pytest.mark.parametrize(("name", "options", "expected"), MISTYPED)
def test_values_of_a_wrong_type(name: str, options: dict[str, Any], expected: str) -> None:
    """Set past the type checks that only the tests make, which would refuse them earlier."""
    made = find(name)()
    for option, value in options.items():
        object.__setattr__(made, option, value)
    with pytest.raises(ValueError) as refused:
        made.__post_init__()
    is_clear(str(refused.value), expected)


@pytest.mark.parametrize(("name", "options", "expected"), UNFIT)
def test_values_that_do_not_fit_the_backbone(
    name: str, options: dict[str, Any], expected: str
) -> None:
    method = build(name, options)
    with pytest.raises(ValueError) as refused:
        asap.ReducedViT(model("plain-p25", torch.float32), method)
    is_clear(str(refused.value), expected)


@pytest.mark.parametrize("another", ["plain-p25", "lvvit-p25"])
def test_dynamicvit_refuses_the_checkpoint_of_a_backbone(another: str, tmp_path: Any) -> None:
    path = tmp_path / "file.pth"
    torch.save({"model": model(another, torch.float32).state_dict()}, path)
    method = build("dynamicvit", {"weights": str(path)})
    with pytest.raises(RequestError) as refused:
        asap.ReducedViT(model(another, torch.float32), method)
    said = str(refused.value)
    assert str(path) in said and "no checkpoint of DynamicViT; check method.weights" in said


def test_dynamicvit_refuses_predictors_of_another_number_or_width() -> None:
    net = model("plain-p25", torch.float32)
    for path, said in (
        (predictor_file(24, 2), "has 2 predictors, not 3: give blocks"),
        (predictor_file(48), "is for 48 channels, and VisionTransformer has 24"),
    ):
        with pytest.raises(ValueError, match=said) as refused:
            asap.ReducedViT(net, build("dynamicvit", {"weights": path}))
        assert f"weights={path!r}" in str(refused.value)


@pytest.mark.parametrize("method", [ToMe(r=[1, 2]), EViT(keep_rate=[0.5, 0.7], blocks=[1, 2])])
def test_lists_are_tuples_in_a_method(method: Method) -> None:
    assert all(not isinstance(getattr(method, f.name), list) for f in fields(method))
    assert isinstance(hash(method), int)
