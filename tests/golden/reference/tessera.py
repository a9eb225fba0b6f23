"""The tessera family, composed from HF's parts: what docs/tessera-format.md says, in PyTorch."""
import json
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (GenerationMixin, GPT2LMHeadModel, LlamaForCausalLM, SiglipVisionModel, ViTConfig,
                          WhisperConfig, WhisperForConditionalGeneration)
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deit.modeling_deit import DeiTModel
from transformers.models.vit.modeling_vit import ViTModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .common import Checkpoint

PROJECTOR = {"type": "none", "hidden_size": None, "activation": "gelu", "norm": False, "norm_eps": 1e-5,
             "position_embedding": False, "drop_class_token": False, "reduce": "none", "factor": 1}


DECODERS = {"whisper": WhisperForConditionalGeneration, "gpt2": GPT2LMHeadModel, "llama": LlamaForCausalLM}
# class, rows before those of the patches, options
TOWERS = {"vit": (ViTModel, 1, {"add_pooling_layer": False}), "deit": (DeiTModel, 2, {"add_pooling_layer": False}),
          "siglip_vision_model": (SiglipVisionModel, 0, {})}


class Projector(nn.Module):
    """Tower rows [R, W] -> rows [R', D] of the decoder's space. grid: (h, w) of an image's patches, None for sound."""

    def __init__(self, config, width, out, special_rows=0, rows=0, bias=True):
        super().__init__()
        self.config, self.special_rows = {**PROJECTOR, **config}, special_rows
        c = self.config
        width *= {"pixel_shuffle": c["factor"] ** 2, "stack": c["factor"]}.get(c["reduce"], 1)
        if c["norm"]:
            self.norm = nn.LayerNorm(width, eps=c["norm_eps"])
        if c["type"] == "linear":
            self.linear = nn.Linear(width, out, bias=bias)
        elif c["type"] == "mlp":
            self.linear_1 = nn.Linear(width, c["hidden_size"], bias=bias)
            self.linear_2 = nn.Linear(c["hidden_size"], out, bias=bias)
        if c["position_embedding"]:
            self.position_embedding = nn.Parameter(torch.zeros(rows, out))

    def reduce(self, x, grid):
        c, f = self.config, self.config["factor"]
        by_grid = grid is not None and c["reduce"] in ("average_pool", "pixel_shuffle")
        if grid is not None and (by_grid or c["drop_class_token"]):
            x = x[self.special_rows:]
        if c["reduce"] == "average_pool":
            if grid is None:
                return F.avg_pool1d(x.T[None], f)[0].T
            return F.avg_pool2d(x.T.reshape(1, -1, *grid), f)[0].flatten(1).T
        if c["reduce"] == "pixel_shuffle":
            h, w = grid
            blocks = x.reshape(h // f, f, w // f, f, -1).permute(0, 2, 1, 3, 4)
            return blocks.reshape((h // f) * (w // f), -1)
        if c["reduce"] == "stack":
            x = F.pad(x, (0, 0, 0, -len(x) % f))
            return x.reshape(len(x) // f, -1)
        return x

    def forward(self, x, grid=None):
        x = self.reduce(x, grid)
        if hasattr(self, "norm"):
            x = self.norm(x)
        if hasattr(self, "linear"):
            x = self.linear(x)
        elif hasattr(self, "linear_1"):
            x = self.linear_2(ACT2FN[self.config["activation"]](self.linear_1(x)))
        if hasattr(self, "position_embedding"):
            x = x + self.position_embedding[: len(x)]
        return x


class Tessera(nn.Module):
    """Towers, projectors and decoder; `decoder` is a whole HF language model (Whisper's encoder in it is not used)."""

    def __init__(self, consume, text, vision=None, audio=None, vision_projector=None, audio_projector=None, bias=True):
        super().__init__()
        self.consume, self.text_config = consume, text
        self.image_embedding = self.audio_embedding = 0  # or [1, D], of an adapter for some task
        self.decoder = DECODERS[text.model_type](text)
        width = text.hidden_size
        if vision is not None:
            kind, special, options = TOWERS[vision.model_type]
            self.vision_tower = kind(vision, **options)
            side = vision.image_size // vision.patch_size
            self.vision_projector = Projector(vision_projector, vision.hidden_size, width, special,
                                              side * side + special, bias)
        if audio is not None:
            self.audio_tower = WhisperEncoder(audio)
            self.audio_projector = Projector(audio_projector, audio.d_model, width, 0, audio.max_source_positions, bias)

    @property
    def is_whisper(self):
        return self.text_config.model_type == "whisper"

    def body(self):
        """The decoder without its head."""
        return self.decoder.model.decoder if self.is_whisper else self.decoder.base_model

    def blocks(self):
        """The decoder's blocks, and its last norm."""
        if self.is_whisper:
            return self.body().layers, self.body().layer_norm
        return (self.body().h, self.body().ln_f) if hasattr(self.body(), "h") else (self.body().layers, self.body().norm)

    def see(self, pixels):
        """[3, H, W] -> tower rows, projected rows."""
        c = self.vision_tower.config
        rows = self.vision_tower(pixels[None]).last_hidden_state[0]
        grid = (pixels.shape[1] // c.patch_size, pixels.shape[2] // c.patch_size)
        return rows, self.vision_projector(rows, grid) + self.image_embedding

    def hear(self, mel):
        """[mels, frames] -> tower rows, projected rows."""
        rows = self.audio_tower(mel[None]).last_hidden_state[0]
        return rows, self.audio_projector(rows) + self.audio_embedding

    def embed(self, ids, rows, placeholders):
        """splice: embeddings of ids [T], those of placeholders replaced by `rows`."""
        x = self.decoder.get_input_embeddings()(ids).clone()
        at = torch.isin(ids, torch.tensor(placeholders))
        assert int(at.sum()) == len(rows)
        x[at] = rows
        return x

    def logits(self, ids, given):
        """A full pass over ids [1, T]; given: memory [1, R, D], or the spliced embeddings [1, T, D]."""
        if self.consume == "splice":
            return self.decoder(inputs_embeds=given).logits
        if self.is_whisper:
            hidden = self.body()(input_ids=ids, encoder_hidden_states=given).last_hidden_state
            return self.decoder.proj_out(hidden)
        return self.decoder(ids, encoder_hidden_states=given).logits

    def inputs(self, ids, given):
        """What generate() is called with, and whether its answer repeats the prompt."""
        if self.consume == "splice":
            return {"inputs_embeds": given}, False
        if self.is_whisper:
            return {"encoder_outputs": BaseModelOutput(last_hidden_state=given), "decoder_input_ids": ids}, True
        return {"input_ids": ids, "encoder_hidden_states": given}, True

    def generate(self, **arguments):
        """HF's plain generate(), not Whisper's own."""
        return GenerationMixin.generate(self.decoder, **arguments)


def published(tessera):
    """{published name with prefix: tensor}."""
    out = {}
    if hasattr(tessera, "vision_tower"):
        names = Checkpoint("").add_model(tessera.vision_tower).tensors
        out.update({f"vision_tower.{n}": t for n, t in names.items()})
        out.update({f"vision_projector.{n}": t for n, t in tessera.vision_projector.state_dict().items()})
    if hasattr(tessera, "audio_tower"):
        out.update({f"audio_tower.{n}": t for n, t in tessera.audio_tower.state_dict().items()})
        out.update({f"audio_projector.{n}": t for n, t in tessera.audio_projector.state_dict().items()})
    out.update({f"decoder.{n}": t for n, t in tessera.body().state_dict().items()})
    if not tessera.is_whisper and not tessera.text_config.tie_word_embeddings:
        out["decoder.lm_head.weight"] = tessera.decoder.lm_head.weight
    return {n: t.detach().clone() for n, t in out.items()}


def nested(config):
    """A config as config.json nests it."""
    out = config.to_dict()
    for key in ("transformers_version", "_name_or_path", "id2label", "label2id"):
        out.pop(key, None)
    return {k: v for k, v in sorted(out.items()) if v is not None}


def with_adapter(decoder, adapter):
    """A decoder's tensors with an adapter of the checkpoint's own (docs/tessera-format.md)."""
    out = dict(decoder)
    for name, tensor in adapter.items():
        layer = name.removesuffix(".lora_A.weight")
        if layer != name:
            out[f"{layer}.weight"] = out[f"{layer}.weight"] + adapter[f"{layer}.lora_B.weight"] @ tensor
        elif not name.endswith(".lora_B.weight"):
            out[name] = tensor
    return out


def from_checkpoint(folder, task):
    """A tessera checkpoint with a Whisper decoder and both towers (any of f32, f16, int8) as a reference model, with
    the adapter of that task."""
    with open(f"{folder}/config.json") as f:
        config = json.load(f)
    stored = load_file(f"{folder}/model.safetensors")
    tensors = {n: t.float() * stored[f"{n}_scale"] if f"{n}_scale" in stored else t.float()
               for n, t in stored.items() if not n.endswith("_scale")}

    def part(prefix):
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    model = Tessera(config["consume"], WhisperConfig(**config["text_config"]), ViTConfig(**config["vision_config"]),
                    WhisperConfig(**config["audio_config"]), config["vision_projector"], config["audio_projector"])
    with tempfile.TemporaryDirectory() as tower:  # from_pretrained knows the published names
        save_file(part("vision_tower."), f"{tower}/model.safetensors", metadata={"format": "pt"})
        with open(f"{tower}/config.json", "w") as f:
            json.dump(config["vision_config"], f)
        model.vision_tower = ViTModel.from_pretrained(tower, add_pooling_layer=False)
    model.audio_tower.load_state_dict(part("audio_tower."))
    model.vision_projector.load_state_dict(part("vision_projector."))
    adapter = config["tasks"][task].get("adapter", "")
    own = part(f"adapters.{adapter}.") if adapter else {}
    model.image_embedding, model.audio_embedding = (own.pop(f"{n}_embedding", 0) for n in ("image", "audio"))
    model.body().load_state_dict(with_adapter(part("decoder."), own))
    model.decoder.tie_weights()
    return model.eval()
