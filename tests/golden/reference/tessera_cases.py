"""Golden checkpoints of the tessera family: both ways of consuming rows, every projector, mixed prompts."""
import torch
from PIL import Image
from transformers import DeiTConfig, GPT2Config, LlamaConfig, SiglipVisionConfig, ViTConfig, WhisperConfig, WhisperFeatureExtractor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .common import (Checkpoint, Retry, case, demand_stable, demand_varied, hidden_states, randomize, record_generate)
from .quantize import quantize
from .tessera import Tessera, nested, published
from .tokenizer import TEXT_TOKENS, to_json, tokenizer
from .vit import picture, preprocessor
from .whisper import FRAMES, preprocessor as sound_preprocessor, sound

SIZE, PATCH, MELS = 16, 4, 8
SPECIAL = ["<|endoftext|>", "<|start|>", "<|caption|>", "<|transcribe|>", "<|image|>", "<|audio|>"]
END, START, CAPTION, TRANSCRIBE, IMAGE, AUDIO = (TEXT_TOKENS + i for i in range(len(SPECIAL)))
VOCABULARY = TEXT_TOKENS + len(SPECIAL)
GENERATION = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END, "max_new_tokens": 10,
              "suppress_tokens": [START, CAPTION, TRANSCRIBE, IMAGE, AUDIO]}
TASKS = {"caption": {"start": [START, CAPTION], "generation": {"num_beams": 3, "max_new_tokens": 8}},
         "transcribe": {"start": [START, TRANSCRIBE]}, "prompt": {"start": [START]}}
BEAMS = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 8}

image = lambda i: {"image": i}  # noqa: E731
audio = lambda i: {"audio": i}  # noqa: E731
text = lambda t: {"text": t}  # noqa: E731
PROMPTS = [
    ("caption", [image(0)], [{}, {"num_beams": 1}]),
    ("transcribe", [audio(0)], [{}]),
    ("prompt", [text("and the"), audio(0), image(1), text(" man "), image(0), audio(1), text("on")], [{}, BEAMS]),
    ("prompt", [image(0), image(1), text("on")], [{}]),
    ("prompt", [image(1), image(0), text("on")], [{}]),  # in a memory the order of rows changes nothing
]


def vision(kind=ViTConfig, **options):
    return kind(**{**dict(hidden_size=9, num_hidden_layers=1, num_attention_heads=3, intermediate_size=14,
                          image_size=SIZE, patch_size=PATCH), **options}, attn_implementation="eager")


def whisper(**options):
    """Both a sound tower's config and a decoder's."""
    return WhisperConfig(**{**dict(
        vocab_size=VOCABULARY, num_mel_bins=MELS, d_model=12, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=3, encoder_ffn_dim=14, decoder_ffn_dim=20,
        max_source_positions=FRAMES // 2, max_target_positions=32, pad_token_id=END, bos_token_id=END,
        eos_token_id=END, decoder_start_token_id=START, begin_suppress_tokens=None), **options},
        attn_implementation="eager")


def gpt2(**options):
    return GPT2Config(**{**dict(vocab_size=VOCABULARY, n_positions=96, n_embd=12, n_layer=2, n_head=3, n_inner=20,
                                bos_token_id=END, eos_token_id=END), **options}, attn_implementation="eager")


def llama(**options):
    return LlamaConfig(**{**dict(vocab_size=VOCABULARY, max_position_embeddings=96, hidden_size=12, intermediate_size=20,
                                 num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, bos_token_id=END,
                                 eos_token_id=END), **options}, attn_implementation="eager")


class Media:
    """Two images and two sounds, and what the reference's preprocessing makes of them."""

    def __init__(self, seed):
        processor = ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})
        extractor = WhisperFeatureExtractor(feature_size=MELS, chunk_length=FRAMES // 100)
        self.images = [picture(seed, f"image {i}", SIZE + 2 * i, SIZE + 3) for i in range(2)]
        self.sounds = [torch.from_numpy(sound(seed, f"sound {i}", 0.14 - 0.05 * i)) for i in range(2)]
        self.pixels = [processor(Image.fromarray(i), return_tensors="pt").pixel_values[0] for i in self.images]
        self.mels = [extractor(s.float().numpy(), sampling_rate=16000, return_tensors="pt").input_features[0]
                     for s in self.sounds]

    def golden(self, model):
        out = {}
        if hasattr(model, "vision_tower"):
            for i, pixels in enumerate(self.pixels):
                hidden, rows = model.see(pixels)
                out.update({f"image.{i}": torch.from_numpy(self.images[i]), f"pixels.{i}": pixels,
                            f"vision.{i}.last_hidden": hidden, f"vision.{i}.rows": rows})
        if hasattr(model, "audio_tower"):
            for i, mel in enumerate(self.mels):
                hidden, rows = model.hear(mel)
                out.update({f"samples.{i}": self.sounds[i], f"mel.{i}": mel, f"audio.{i}.last_hidden": hidden,
                            f"audio.{i}.rows": rows})
        return out


def lay_out(model, words, media, task, pieces):
    """-> ids [1, T] of the decoder's sequence, and the memory or spliced embeddings that go with them."""
    ids, rows = list(task.get("start", [])), []
    for piece in pieces:
        if "text" in piece:
            ids += words.encode(piece["text"]).ids
            continue
        seen = "image" in piece
        rows.append(model.see(media.pixels[piece["image"]])[1] if seen else model.hear(media.mels[piece["audio"]])[1])
        if model.consume == "splice":
            ids += [IMAGE if seen else AUDIO] * len(rows[-1])
    ids = torch.tensor(ids + task.get("end", []))
    rows = torch.cat(rows)
    given = rows if model.consume == "memory" else model.embed(ids, rows, [IMAGE, AUDIO])
    return ids[None], given[None]


def prepare(model, seed, dtype):
    """Random weights, rounded to dtype, with what makes images and sounds matter."""
    randomize(model, seed)
    model.decoder.tie_weights()
    body = model.body()
    with torch.no_grad():
        for layer in body.layers if model.is_whisper else []:
            layer.encoder_attn.q_proj.weight *= 3
            layer.encoder_attn.out_proj.weight *= 2
        for block in getattr(body, "h", []):
            if hasattr(block, "crossattention"):
                block.crossattention.q_attn.weight *= 3
                block.crossattention.c_proj.weight *= 2
        model.decoder.get_input_embeddings().weight[END] *= 1.5
        if dtype != torch.int8:
            for p in model.parameters():
                p.copy_(p.to(dtype).float())
    return model.eval()


def build(seed, model, tasks=None, dtype=torch.float16, prompts=PROMPTS):
    prepare(model, seed, dtype)
    tasks = tasks or TASKS
    tensors, quantization = published(model), None
    if dtype == torch.int8:
        tensors, quantization = quantize(tensors, model)
    words, media = tokenizer(SPECIAL), Media(seed)
    prompts = prompts if model.consume == "splice" else [p for p in prompts if p[1][0] != image(1)]
    usable = [p for p in prompts if all(("image" not in x or hasattr(model, "vision_tower")) and
                                        ("audio" not in x or hasattr(model, "audio_tower")) for x in p[1])]

    def answers():
        made = []
        for task, pieces, runs in usable:
            with torch.no_grad():
                ids, given = lay_out(model, words, media, tasks[task], pieces)
            entry = {"task": task, "pieces": pieces, "ids": ids[0].tolist(), "generate": []}
            for options in runs:
                wanted = {**GENERATION, **tasks[task].get("generation", {}), **options}
                inputs, repeats = model.inputs(ids, given)
                run = record_generate(model, "beams" if wanted.get("num_beams", 1) > 1 else "greedy", inputs,
                                      ids[0].tolist(), [END], wanted, strip_prompt=repeats)
                run.update(options=options, text=words.decode(run["ids"]))
                run.pop("prompt")
                entry["generate"].append(run)
            made.append(entry)
        return made

    said = answers()
    if any(len(run["ids"]) < 3 for entry in said for run in entry["generate"]):
        raise Retry("an answer is too short")
    demand_varied([i for entry in said for run in entry["generate"] for i in run["ids"]], 10)
    results = [str(entry["generate"][0]["ids"]) for entry in said]
    if len(set(results)) < len(results):
        raise Retry("two prompts have the same answer")
    demand_stable(model, answers, seed)

    made = Checkpoint("tessera")
    made.tensors = tensors if quantization else {n: t.to(dtype) for n, t in tensors.items()}
    made.files = files(model, words, tasks, quantization)
    made.notes["prompts"] = said
    with torch.no_grad():
        made.add_golden(media.golden(model))
        for i, (task, pieces, _) in enumerate(usable):
            made.add_golden(stages(model, i, *lay_out(model, words, media, tasks[task], pieces)))
    return made


def stages(model, i, ids, given):
    with hidden_states(*model.blocks(), f"{i}.") as golden:
        golden[f"{i}.logits"] = model.logits(ids, given)[0, -1]
    golden[f"{i}.memory" if model.consume == "memory" else f"{i}.embeddings"] = given[0]
    return golden


def files(model, words, tasks, quantization):
    config = {"model_type": "tessera", "tessera_version": 1, "consume": model.consume}
    preprocessing = {}
    if hasattr(model, "vision_tower"):
        config["vision_config"] = nested(model.vision_tower.config)
        config["vision_projector"] = {k: v for k, v in model.vision_projector.config.items() if v is not None}
        preprocessing["image_processor"] = preprocessor(SIZE)
    if hasattr(model, "audio_tower"):
        config["audio_config"] = nested(model.audio_tower.config)
        config["audio_projector"] = {k: v for k, v in model.audio_projector.config.items() if v is not None}
        preprocessing["feature_extractor"] = sound_preprocessor(MELS)
    config["text_config"] = nested(model.text_config)
    if model.consume == "splice":
        config.update(image_token_id=IMAGE, audio_token_id=AUDIO)
    config.update(bos_token_id=END, eos_token_id=END, pad_token_id=END, tasks=tasks)
    if quantization:
        config["quantization_config"] = quantization
    return {"config.json": config, "generation_config.json": GENERATION, "preprocessor_config.json": preprocessing,
            "tokenizer.json": to_json(words)}


# --- the cases -----------------------------------------------------------------------------------------------------

FIRST_LIGHT = dict(vision_projector={"type": "mlp", "hidden_size": 16, "norm": True, "position_embedding": True},
                   audio_projector={"type": "none"})


@case("tessera-memory", "as first light: image rows by norm, MLP and positions, sound rows as they are")
def tessera_memory(seed):
    return build(seed, Tessera("memory", whisper(), vision(), whisper(), **FIRST_LIGHT))


@case("tessera-memory-int8", "the same layout, 2-D weights in int8 with a scale per row, the rest f16")
def tessera_memory_int8(seed):
    return build(seed, Tessera("memory", whisper(), vision(), whisper(), **FIRST_LIGHT), dtype=torch.int8)


@case("tessera-memory-reduced", "images: average pool 2, linear, positions; sounds: stack 4 (tail of zeros), norm, MLP")
def tessera_memory_reduced(seed):
    return build(seed, Tessera(
        "memory", whisper(activation_function="relu"), vision(), whisper(d_model=8),
        vision_projector={"type": "linear", "reduce": "average_pool", "factor": 2, "position_embedding": True},
        audio_projector={"type": "mlp", "hidden_size": 18, "reduce": "stack", "factor": 4, "norm": True}))


@case("tessera-memory-gpt2", "a GPT-2 decoder with cross-attention; images without class token, stack 3; sounds pooled")
def tessera_memory_gpt2(seed):
    return build(seed, Tessera(
        "memory", gpt2(add_cross_attention=True), vision(), whisper(),
        vision_projector={"type": "linear", "drop_class_token": True, "reduce": "stack", "factor": 3, "norm": True,
                          "norm_eps": 1e-2},
        audio_projector={"type": "none", "reduce": "average_pool", "factor": 7, "position_embedding": True}))


SPLICE_TASKS = {"caption": {"start": [START], "end": [CAPTION], "generation": {"num_beams": 3, "max_new_tokens": 8}},
                "transcribe": {"start": [START], "end": [TRANSCRIBE]}, "prompt": {"start": [START]}}


@case("tessera-splice", "GPT-2; images: pixel shuffle 2, linear without bias; sounds: stack 8, norm, MLP")
def tessera_splice(seed):
    return build(seed, Tessera(
        "splice", gpt2(), vision(), whisper(d_model=6),
        vision_projector={"type": "linear", "reduce": "pixel_shuffle", "factor": 2},
        audio_projector={"type": "mlp", "hidden_size": 12, "reduce": "stack", "factor": 8, "norm": True},
        bias=False), SPLICE_TASKS)


@case("tessera-splice-deit", "GPT-2, untied head; DeiT, average pool 3, MLP, positions; sounds: average pool 9, linear")
def tessera_splice_deit(seed):
    return build(seed, Tessera(
        "splice", gpt2(tie_word_embeddings=False), vision(DeiTConfig), whisper(d_model=8),
        vision_projector={"type": "mlp", "hidden_size": 10, "activation": "gelu_pytorch_tanh", "norm": True,
                          "reduce": "average_pool", "factor": 3, "position_embedding": True},
        audio_projector={"type": "linear", "reduce": "average_pool", "factor": 9, "norm": True}), SPLICE_TASKS)


@case("tessera-splice-images", "no sound tower; images: all rows as they are (no projection)")
def tessera_splice_images(seed):
    return build(seed, Tessera("splice", gpt2(), vision(hidden_size=12), vision_projector={"type": "none"}),
                 SPLICE_TASKS)


@case("tessera-splice-siglip-llama", "Llama, own head; SigLIP (no class token): pixel shuffle 2, MLP; sounds: stack 8, linear")
def tessera_splice_siglip_llama(seed):
    return build(seed, Tessera(
        "splice", llama(), vision(SiglipVisionConfig, vision_use_head=False), whisper(d_model=6),
        vision_projector={"type": "mlp", "hidden_size": 14, "reduce": "pixel_shuffle", "factor": 2},
        audio_projector={"type": "linear", "reduce": "stack", "factor": 8, "norm": True}), SPLICE_TASKS)


@case("tessera-memory-sounds", "no image tower; sounds: norm, linear")
def tessera_memory_sounds(seed):
    more = [("prompt", [audio(0), audio(1), text("on")], [{}]), ("prompt", [audio(1), text(" the")], [{}])]
    return build(seed, Tessera("memory", whisper(), audio=whisper(d_model=8),
                               audio_projector={"type": "linear", "norm": True}), prompts=PROMPTS + more)
