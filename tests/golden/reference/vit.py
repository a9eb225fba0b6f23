"""ViT and DeiT: pixels in, hidden states and class logits out."""
import numpy as np
import torch
from PIL import Image
from transformers import (DeiTConfig, DeiTForImageClassification, DeiTModel, ViTConfig, ViTForImageClassification,
                          ViTModel)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .common import Checkpoint, case, hidden_states, normal, randomize, rng

PREPROCESSOR = {"image_processor_type": "ViTImageProcessor", "do_normalize": True, "do_rescale": True,
                "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2,
                "rescale_factor": 1 / 255}


def preprocessor(size):
    return {**PREPROCESSOR, "size": {"height": size, "width": size}}


def picture(seed, name, height, width):
    """A few soft shapes and some noise, [H, W, 3] U8."""
    noise = rng(seed, name)
    small = noise.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC), dtype=np.int64)
    return np.clip(soft + noise.integers(-20, 21, soft.shape), 0, 255).astype(np.uint8)


def small(kind=ViTConfig, **options):
    defaults = dict(hidden_size=18, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, image_size=20,
                    patch_size=4, num_labels=7)
    return kind(**{**defaults, **options}, attn_implementation="eager")


def names_of(config):
    """Labels with names, as a classifier has them."""
    config.id2label = {i: f"thing {i}" for i in range(config.num_labels)}
    config.label2id = {v: k for k, v in config.id2label.items()}
    return config


def run(model, body, pixels, interpolate=False):
    with torch.no_grad(), hidden_states(body.layers, body.layernorm) as golden:
        out = model(pixels[None], interpolate_pos_encoding=interpolate)
    if getattr(out, "logits", None) is not None:
        golden["logits"] = out.logits[0]
    if getattr(out, "pooler_output", None) is not None:
        golden["pooler_output"] = out.pooler_output[0]
    return golden


def build(seed, model, body, dtype=torch.float32, family="vit"):
    """One square image of the config's size, from an image file's pixels on."""
    size = model.config.image_size
    randomize(model, seed, dtype)
    image = picture(seed, "image", size + 13, size + 6)
    processor = ViTImageProcessorPil(size={"height": size, "width": size})
    pixels = processor(Image.fromarray(image), return_tensors="pt").pixel_values[0]
    made = Checkpoint(family).add_model(model, dtype)
    made.files["preprocessor_config.json"] = preprocessor(size)
    made.add_golden({"image": image, "pixels": pixels, **run(model, body, pixels)})
    return made


def classifier(seed, config, dtype=torch.float32):
    model = ViTForImageClassification(names_of(config))
    made = build(seed, model, model.vit, dtype)
    made.notes["labels"] = list(config.id2label.values())
    return made


@case("vit-classify", "ViTForImageClassification, 3 heads of 6, patch 4, image 20")
def vit_classify(seed):
    return classifier(seed, small())


@case("vit-no-bias", "f16, qkv_bias false, gelu_new, patch 5, layer_norm_eps 1e-2, 1 head, 3 layers")
def vit_no_bias(seed):
    return classifier(seed, small(qkv_bias=False, hidden_act="gelu_new", layer_norm_eps=1e-2,
                                  num_attention_heads=1, num_hidden_layers=3, patch_size=5, hidden_size=13,
                                  intermediate_size=41), torch.float16)


@case("vit-relu-f16", "f16, relu, 5 heads of 3, 2 labels, patch 8 of an image of 24")
def vit_relu(seed):
    return classifier(seed, small(hidden_act="relu", hidden_size=15, num_attention_heads=5, num_labels=2,
                                  patch_size=8, image_size=24), torch.float16)


@case("vit-pooler", "ViTModel as a backbone: no head, no prefix, with pooler")
def vit_pooler(seed):
    model = ViTModel(small(image_size=12))
    return build(seed, model, model)


@case("vit-interpolate", "other image sizes than the config's: position embeddings interpolated (pixels.0 .. pixels.5)")
def vit_interpolate(seed):
    model = randomize(ViTForImageClassification(small(hidden_size=12, intermediate_size=20, num_hidden_layers=1,
                                                      image_size=16)), seed)
    made = Checkpoint("vit").add_model(model)
    made.files["preprocessor_config.json"] = preprocessor(16)
    for i, (height, width) in enumerate([(16, 16), (28, 28), (12, 12), (12, 28), (36, 8), (18, 31)]):
        pixels = normal(seed, f"pixels.{i}", (3, height, width)).half().float()
        golden = run(model, model.vit, pixels, interpolate=True)
        keep = {f"{i}.{n}": golden[n] for n in ("hidden.0", "last_hidden", "logits")}
        made.add_golden({f"pixels.{i}": pixels.half(), **keep})
    return made


@case("deit-classify", "DeiTForImageClassification: class and distillation token, head on the class token")
def deit_classify(seed):
    model = DeiTForImageClassification(names_of(small(DeiTConfig)))
    made = build(seed, model, model.deit, family="deit")
    made.notes["labels"] = list(model.config.id2label.values())
    return made


@case("deit-backbone", "DeiTModel without head and pooler, no prefix, qkv_bias false, silu; interpolated as well")
def deit_backbone(seed):
    model = DeiTModel(small(DeiTConfig, hidden_size=12, qkv_bias=False, hidden_act="silu"), add_pooling_layer=False)
    made = build(seed, model, model, family="deit")
    pixels = normal(seed, "pixels.1", (3, 32, 12))
    golden = run(model, model, pixels, interpolate=True)
    made.add_golden({f"1.{name}": golden[name] for name in ("hidden.0", "last_hidden")})
    return made.add_golden({"pixels.1": pixels})
