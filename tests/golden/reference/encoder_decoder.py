"""vision-encoder-decoder: ViT and a cross-attending GPT-2, as nlpconnect/vit-gpt2-image-captioning is laid out."""
import torch
from PIL import Image
from transformers import GPT2Config, ViTConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .common import (Checkpoint, Retry, case, demand_stable, demand_varied, hidden_states, integers, randomize,
                     record_generate)
from .tokenizer import TEXT_TOKENS, to_json, tokenizer
from .vit import picture, preprocessor

END = TEXT_TOKENS  # the only special token: start, end, padding
SIZE = 16
DEFAULTS = {"max_length": 14, "num_beams": 4}  # of generation_config.json, as the published one is used
RUNS = [("as the checkpoint says", {}), ("greedy", {"max_length": 16, "num_beams": 1}),
        ("beams, all returned", {"max_length": 12, "num_beams": 3, "num_return_sequences": 3, "early_stopping": True}),
        ("continued", {"max_new_tokens": 6, "num_beams": 1})]


def configs(vision_width, text_width, **vision):
    encoder = ViTConfig(**{**dict(hidden_size=vision_width, num_hidden_layers=2, num_attention_heads=3,
                                  intermediate_size=20, image_size=SIZE, patch_size=4), **vision})
    decoder = GPT2Config(vocab_size=END + 1, n_positions=24, n_embd=text_width, n_layer=2, n_head=3, n_inner=24,
                         bos_token_id=END, eos_token_id=END, is_decoder=True, add_cross_attention=True)
    decoder.decoder_start_token_id = END
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = config.bos_token_id = END
    return config


def make_model(seed, config, dtype):
    model = VisionEncoderDecoderModel(config)
    model.set_attn_implementation("eager")
    randomize(model, seed)
    body = model.decoder.transformer
    assert model.decoder.lm_head.weight is body.wte.weight
    with torch.no_grad():
        for block in body.h:  # what is seen has to matter
            block.crossattention.q_attn.weight *= 3
            block.crossattention.c_proj.weight *= 2
        body.wte.weight[END] *= 1.5
        for p in model.parameters():
            p.copy_(p.to(dtype).float())
    for key, value in {**DEFAULTS, "bos_token_id": END, "eos_token_id": END, "pad_token_id": END,
                       "decoder_start_token_id": END}.items():
        setattr(model.generation_config, key, value)
    return model


def build(seed, config, dtype=torch.float32):
    model = make_model(seed, config, dtype)
    words = tokenizer(["<|endoftext|>"])
    processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})
    images = [picture(seed, f"image {i}", SIZE + 5, SIZE + 11) for i in range(2)]
    pixels, other = (processor(Image.fromarray(i), return_tensors="pt").pixel_values for i in images)

    def answers(pixels=pixels):
        made = []
        for name, options in RUNS:
            prompt = [END, *words.encode(" a man").ids] if name == "continued" else [END]
            inputs = {"pixel_values": pixels, "decoder_input_ids": torch.tensor([prompt])}
            entry = record_generate(model, name, inputs, prompt, [END], {**DEFAULTS, **options})
            made.append({**entry, "options": options, "text": words.decode(entry["ids"])})
        return made

    generate = answers()
    demand_varied(generate[1]["ids"], 5)
    if [g["ids"] for g in answers(other)][:2] == [g["ids"] for g in generate][:2]:
        raise Retry("another image gives the same ids")
    demand_stable(model, answers, seed)

    made = Checkpoint("vision-encoder-decoder").add_model(model, dtype)
    made.files["generation_config.json"] = {**DEFAULTS, "bos_token_id": END, "decoder_start_token_id": END,
                                            "eos_token_id": END, "pad_token_id": END}
    made.files["preprocessor_config.json"] = preprocessor(SIZE)
    made.files["tokenizer.json"] = to_json(words)
    made.notes["generate"] = generate
    return made.add_golden({"image": images[0], "pixels": pixels[0], **stages(model, pixels, seed)})


def stages(model, pixels, seed):
    ids = torch.tensor([[END] + integers(seed, "input_ids", END, 6)])
    tower, body = model.encoder, model.decoder.transformer
    with torch.no_grad(), hidden_states(tower.layers, tower.layernorm, "vision.") as seen, \
            hidden_states(body.h, body.ln_f, "decoder.") as said:
        logits = model(pixel_values=pixels, decoder_input_ids=ids).logits[0]
        memory = seen["vision.last_hidden"]
        if hasattr(model, "enc_to_dec_proj"):
            memory = model.enc_to_dec_proj(memory)
    return {"input_ids": ids[0], **seen, "memory": memory, **said, "logits": logits}


@case("ved-published", "one width, leftover attention masks and a stored copy of the tied head, as published")
def ved_published(seed):
    made = build(seed, configs(12, 12))
    mask = torch.tril(torch.ones(1, 1, 24, 24)).to(torch.uint8)
    for layer in range(2):
        for part in ("attn", "crossattention"):
            name = f"decoder.transformer.h.{layer}.{part}"
            made.tensors[f"{name}.bias"] = mask
            made.tensors[f"{name}.masked_bias"] = torch.tensor(-1e4)
    made.tensors["decoder.lm_head.weight"] = made.tensors["decoder.transformer.wte.weight"].clone()
    return made


@case("ved-projected", "widths differ: enc_to_dec_proj; ViT without qkv bias, gelu_new; f16")
def ved_projected(seed):
    return build(seed, configs(12, 18, qkv_bias=False, hidden_act="gelu_new"), torch.float16)
