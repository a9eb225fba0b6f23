"""CLIP, SigLIP and VisionTextDualEncoder: images and texts in, vectors of one space and their logits out."""
import json

import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModel, SiglipConfig, SiglipModel,
                          SiglipVisionConfig, ViTConfig, VisionTextDualEncoderConfig, VisionTextDualEncoderModel)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .common import Checkpoint, case, hidden_states, integers, normal, randomize
from .vit import picture, preprocessor

VISION = dict(hidden_size=18, num_hidden_layers=2, num_attention_heads=3, intermediate_size=25, image_size=24, patch_size=8)
TEXT = dict(hidden_size=15, num_hidden_layers=2, num_attention_heads=5, intermediate_size=28, vocab_size=90,
            max_position_embeddings=12, bos_token_id=88, eos_token_id=89, pad_token_id=89)
TEXTS = ["A dog runs  on the beach", "a red Car", "two dogs, play!", "the woman and the man in the snow and the cat on the mat"]


MERGES = ("t h|th e</w>|d o|do g</w>|do g|dog s</w>|r e|re d</w>|o n</w>|t w|tw o</w>|c a|ca r</w>|ca t</w>|m a|ma n</w>|i n</w>|"
          "s n|sn o|sno w</w>|b e|be a|bea c|beac h</w>|w o|wo man</w>|p l|pl a|pla y</w>|a n")


def tokenizer():
    """CLIP's rules with 90 tokens: lower case, "</w>" behind a word, start and end token last."""
    letters = "abcdefghijklmnopqrstuvwxyz,.!"
    merges = [tuple(m.split(" ")) for m in MERGES.split("|")]
    tokens = list(letters) + [c + "</w>" for c in letters] + [a + b for a, b in merges]
    tokens += [f"<unused{i}>" for i in range(88 - len(tokens))] + ["<|startoftext|>", "<|endoftext|>"]
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, unk_token="<|endoftext|>",
                                continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
                                                  pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("<|endoftext|>", 89), ("<|startoftext|>", 88), trim_offsets=False,
                                                       add_prefix_space=False)
    return made


def clip_preprocessor(size):
    return {"crop_size": {"height": size, "width": size}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
            "do_rescale": True, "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_processor_type": "CLIPImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
            "rescale_factor": 1 / 255, "size": {"shortest_edge": size}}


def texts_of(seed, config):
    """Ids of several lengths; one with the end token twice, as padding has it, and one as long as can be."""
    end = config.vocab_size - 1  # what counts where the config says 2
    bodies = [integers(seed, f"text.{i}", end, n) for i, n in enumerate((4, 1, 7, config.max_position_embeddings - 1))]
    return [b + [end] for b in bodies[:2]] + [bodies[2] + [end, end]] + [bodies[3] + [end]]


def pairs(made, model, pixels, texts, pad=None):
    """What the whole model says of three images and all texts, each text alone so that nothing is padded."""
    images = [pixels] + [normal(7, f"pixels.{i}", tuple(pixels.shape)) for i in (1, 2)]
    made.add_golden({f"other.{i}": x for i, x in enumerate(images[1:])})
    rows = []
    with torch.no_grad():
        for text in texts:
            text = text + [pad] * (model.config.text_config.max_position_embeddings - len(text)) if pad is not None else text
            out = model(input_ids=torch.tensor([text]), pixel_values=torch.stack(images))
            rows.append((out.text_embeds[0], out.logits_per_image[:, 0]))
    made.add_golden({"image_embeds": out.image_embeds, "text_embeds": torch.stack([r[0] for r in rows]),
                     "logits_per_image": torch.stack([r[1] for r in rows], 1)})
    made.notes["text_ids"] = texts
    return made


def tower_stages(made, tower, pixels, norm, layers, interpolate=False, prefix=""):
    with torch.no_grad(), hidden_states(layers, norm) as golden:
        out = tower(pixels[None], interpolate_pos_encoding=interpolate)
    golden["last_hidden"] = out.last_hidden_state[0]
    if out.pooler_output is not None:
        golden["pooled"] = out.pooler_output[0]
    return made.add_golden({prefix + k: v for k, v in golden.items()})


def start(seed, model, family, size, dtype):
    randomize(model, seed, dtype)
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
    image = picture(seed, "image", size + 13, size + 6)
    made = Checkpoint(family).add_model(model, dtype)
    return made.add_golden({"image": image}), image


def clip(seed, vision, text, dtype, projection=11):
    model = CLIPModel(CLIPConfig(text_config={**TEXT, **text}, vision_config={**VISION, **vision}, projection_dim=projection,
                                 attn_implementation="eager"))
    size = model.config.vision_config.image_size
    made, image = start(seed, model, "clip", size, dtype)
    made.files["preprocessor_config.json"] = clip_preprocessor(size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    pixels = processor(Image.fromarray(image), return_tensors="pt").pixel_values[0]
    made.add_golden({"pixels": pixels})
    tower_stages(made, model.vision_model, pixels, None, model.vision_model.encoder.layers)
    return pairs(made, model, pixels, texts_of(seed, model.config.text_config)), model


@case("clip-published", "f16, quick_gelu, first end token; patches of 8, widths 18 and 15, 11 numbers a vector; with a tokenizer")
def clip_published(seed):
    made, model = clip(seed, {}, {}, torch.float16)
    words = tokenizer()
    made.files["tokenizer.json"] = json.loads(words.to_str())
    made.files["tokenizer_config.json"] = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
                                           "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
                                           "tokenizer_class": "CLIPTokenizerFast", "model_max_length": 12}
    ids = []
    for text in TEXTS:  # as CLIPProcessor(..., truncation=True)
        words.enable_truncation(12)
        ids.append(words.encode(text).ids)
    made.notes["texts"] = TEXTS
    made.notes["ids_of_texts"] = ids
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([i]), pixel_values=made.golden["pixels"][None]).text_embeds[0] for i in ids]
    return made.add_golden({"embeds_of_texts": torch.stack(rows)})


@case("clip-old", "f16, exact gelu, end token 2: the highest id's row; image of 21 in patches of 8; old buffers")
def clip_old(seed):
    made, _ = clip(seed, dict(hidden_act="gelu", num_attention_heads=2, image_size=21, num_hidden_layers=1),
                   dict(hidden_act="gelu", eos_token_id=2, bos_token_id=0, pad_token_id=1, layer_norm_eps=1e-2), torch.float16, 20)
    made.tensors["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    made.tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return made


@case("clip-tower", "the image tower alone, f16; other image sizes: positions interpolated (pixels.1, pixels.2)")
def clip_tower(seed):
    model = CLIPVisionModel(CLIPVisionConfig(**{**VISION, "hidden_size": 12, "num_hidden_layers": 1, "patch_size": 4, "image_size": 16},
                                             attn_implementation="eager"))
    randomize(model, seed, torch.float16)
    made = Checkpoint("clip").add_model(model, torch.float16)
    made.files["preprocessor_config.json"] = clip_preprocessor(16)
    for i, (height, width) in enumerate([(16, 16), (12, 28), (20, 20)]):
        pixels = normal(seed, f"pixels.{i}", (3, height, width)).half().float()
        made.add_golden({f"pixels.{i}": pixels.half()})
        tower_stages(made, model, pixels, None, model.encoder.layers, True, f"{i}.")
    return made


@case("siglip-pair", "f16, a whole siglip checkpoint with both towers in use: bidirectional text, head, scale and bias")
def siglip_pair(seed):
    text = {**TEXT, "projection_size": 18, "pad_token_id": 1, "hidden_act": "gelu_pytorch_tanh"}
    vision = {**VISION, "hidden_act": "gelu_pytorch_tanh"}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision, attn_implementation="eager"))
    made, image = start(seed, model, "siglip", 24, torch.float16)
    made.files["preprocessor_config.json"] = {**preprocessor(24), "image_processor_type": "SiglipImageProcessor", "resample": 3}
    pixels = normal(seed, "pixels", (3, 24, 24)).half().float()
    del made.golden["image"]
    made.add_golden({"pixels": pixels})
    tower_stages(made, model.vision_model, pixels, model.vision_model.post_layernorm, model.vision_model.encoder.layers)
    pairs(made, model, pixels, texts_of(seed, model.config.text_config), pad=1)
    three = [text + [1] * (12 - len(text)) for text in made.notes["text_ids"][:3]]
    images = torch.stack([pixels, made.golden["other.0"], made.golden["other.1"]])
    with torch.no_grad():
        out = model(input_ids=torch.tensor(three), pixel_values=images, return_loss=True)
    made.notes["loss_of_three"] = round(out.loss.item(), 6)
    return made


def dual(seed, vision):
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, CLIPTextConfig(**TEXT, attn_implementation="eager"),
                                                                  projection_dim=11)
    model = VisionTextDualEncoderModel(config)
    made, _ = start(seed, model, "vision-text-dual-encoder", 24, torch.float16)
    made.files["preprocessor_config.json"] = preprocessor(24)
    del made.golden["image"]
    pixels = normal(seed, "pixels", (3, 24, 24)).half().float()
    made.add_golden({"pixels": pixels})
    return pairs(made, model, pixels, texts_of(seed, config.text_config))


@case("dual-vit", "VisionTextDualEncoderModel: a ViT with its pooler, and CLIP's text tower; f16")
def dual_vit(seed):
    return dual(seed, ViTConfig(**VISION, attn_implementation="eager"))


@case("dual-siglip", "VisionTextDualEncoderModel: SigLIP's image tower and CLIP's text tower; f16")
def dual_siglip(seed):
    return dual(seed, SiglipVisionConfig(**VISION, attn_implementation="eager"))
