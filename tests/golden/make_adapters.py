#!/usr/bin/env python3
"""Makes tests/data/adapters: LoRA adapters as PEFT saves them, for golden checkpoints, and what the models with them answer.

Needs torch 2.13, transformers 5.23 and peft 0.21.
"""
import json
import os
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel, LlamaForCausalLM, WhisperForConditionalGeneration

HERE = os.path.dirname(os.path.abspath(__file__))
FAMILIES, OUT = os.path.join(HERE, "../data/families"), os.path.join(HERE, "../data/adapters")
CASES = {
    "gpt2-base": (GPT2LMHeadModel, dict(r=3, lora_alpha=5)),
    "llama-tied-grouped": (LlamaForCausalLM, dict(r=2, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "down_proj"])),
    "whisper-english": (WhisperForConditionalGeneration, dict(r=4, lora_alpha=2, target_modules=["q_proj", "v_proj", "fc1"])),
}


def main():
    for name, (kind, options) in CASES.items():
        torch.manual_seed(len(name))
        folder = f"{OUT}/{name}"
        shutil.rmtree(folder, ignore_errors=True)
        model = get_peft_model(kind.from_pretrained(f"{FAMILIES}/{name}", dtype=torch.float32), LoraConfig(**options)).eval()
        with torch.no_grad():
            for key, p in model.named_parameters():
                if "lora_B" in key:
                    p.normal_(0, 0.3)
        model.save_pretrained(folder)
        ids = torch.tensor([[1, 5, 2, 7, 3]])
        inputs = {"input_ids": ids}
        if "whisper" in name:
            mel = load_file(f"{FAMILIES}/{name}/golden.safetensors")["mel"].float()
            inputs = {"input_features": mel[None], "decoder_input_ids": ids}
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        save_file({"input_ids": ids[0], "logits": logits}, f"{folder}/golden.safetensors")
        for file in os.listdir(folder):
            if file.endswith(".md"):
                os.remove(f"{folder}/{file}")
        with open(f"{folder}/adapter_config.json") as f:
            config = json.load(f)
        config["base_model_name_or_path"] = name
        config["target_modules"] = sorted(config["target_modules"])
        with open(f"{folder}/adapter_config.json", "w") as f:
            json.dump(config, f, indent=2)
            f.write("\n")


if __name__ == "__main__":
    main()
