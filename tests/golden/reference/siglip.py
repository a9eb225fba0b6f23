"""SigLIP's image tower: pixels in, hidden states and the pooled vector out."""
import torch
from PIL import Image
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from .common import Checkpoint, case, hidden_states, normal, randomize
from .vit import picture

SMALL = dict(hidden_size=18, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, image_size=20, patch_size=4)


def small(**options):
    return SiglipVisionConfig(**{**SMALL, **options}, attn_implementation="eager")


def preprocessor(size):
    """As published."""
    return {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5],
            "processor_class": "SiglipProcessor", "resample": 3, "rescale_factor": 1 / 255,
            "size": {"height": size, "width": size}}


def run(tower, pixels, interpolate=False):
    with torch.no_grad(), hidden_states(tower.encoder.layers, tower.post_layernorm) as golden:
        out = tower(pixels[None], interpolate_pos_encoding=interpolate)
    if out.pooler_output is not None:
        golden["pooled"] = out.pooler_output[0]
    return golden


def build(seed, model, tower, dtype=torch.float16):
    """One square image of the config's size, from an image file's pixels on."""
    randomize(model, seed, dtype)
    size = tower.config.image_size
    image = picture(seed, "image", size + 13, size + 6)
    processor = SiglipImageProcessorPil(size={"height": size, "width": size})
    pixels = processor(Image.fromarray(image), return_tensors="pt").pixel_values[0]
    made = Checkpoint("siglip").add_model(model, dtype)
    made.files["preprocessor_config.json"] = preprocessor(size)
    return made.add_golden({"image": image, "pixels": pixels, **run(tower, pixels)})


@case("siglip-published", "f32, a whole `siglip` checkpoint: both towers, and a tokenizer of a kind that is not read")
def siglip_published(seed):
    text = dict(hidden_size=6, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, vocab_size=9,
                max_position_embeddings=4, bos_token_id=1, eos_token_id=2)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=SMALL, attn_implementation="eager"))
    made = build(seed, model, model.vision_model, torch.float32)
    made.files["tokenizer.json"] = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                                    "post_processor": None, "decoder": None,
                                    "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}}
    return made


@case("siglip-head", "the tower alone, with its pooling head: 5 heads of 3, exact gelu, large layer_norm_eps")
def siglip_head(seed):
    model = SiglipVisionModel(small(hidden_size=15, num_attention_heads=5, hidden_act="gelu", layer_norm_eps=1e-2))
    return build(seed, model, model)


@case("siglip-border", "no pooling head; patches of 14 in an image of 33: 5 pixels are not seen; 1 head; old names")
def siglip_border(seed):
    model = SiglipVisionModel(small(vision_use_head=False, hidden_size=7, intermediate_size=11, num_attention_heads=1,
                                    num_hidden_layers=3, patch_size=14, image_size=33))
    made = build(seed, model, model)
    made.tensors = {f"vision_model.{n}": t for n, t in made.tensors.items()}
    return made


@case("siglip-interpolate", "other image sizes than the config's: positions interpolated (pixels.0 .. pixels.5)")
def siglip_interpolate(seed):
    model = randomize(SiglipVisionModel(small(hidden_size=12, intermediate_size=20, num_hidden_layers=1, image_size=16)),
                      seed, torch.float16)
    made = Checkpoint("siglip").add_model(model, torch.float16)
    made.files["preprocessor_config.json"] = preprocessor(16)
    for i, (height, width) in enumerate([(16, 16), (28, 28), (12, 12), (12, 28), (32, 8), (18, 31)]):
        pixels = normal(seed, f"pixels.{i}", (3, height, width)).half().float()
        golden = run(model, pixels, interpolate=True)
        made.add_golden({f"pixels.{i}": pixels.half(),
                         **{f"{i}.{n}": golden[n] for n in ("hidden.0", "last_hidden", "pooled")}})
    return made
