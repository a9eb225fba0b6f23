"""PyTorch (HF transformers), eager, f32 or bf16."""
import time

import torch
import transformers as hf

from towers import tower


def decoder(arguments, dtype):
    model = hf.AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=dtype).eval()
    ids = torch.tensor([[i * 7919 % model.config.vocab_size for i in range(arguments.prefill)]])
    return model, ids


def prefill(model, ids):
    out = model(ids, use_cache=True, logits_to_keep=1)
    return out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)


def prepare(work, arguments):
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[arguments.format]
    version = f"PyTorch {torch.__version__}"
    if work.startswith("encode"):
        module, x = tower(work, arguments.checkpoint)
        module, x = module.to(dtype), x.to(dtype)
        return version, lambda: (module(x), None)[1]
    model, ids = decoder(arguments, dtype)
    if work == "prefill":
        return version, lambda: (prefill(model, ids), None)[1]

    def decode():
        cache, token = prefill(model, ids)
        start = time.perf_counter()
        for _ in range(arguments.decode):
            out = model(token, past_key_values=cache, use_cache=True)
            cache, token = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
        return 1e3 * (time.perf_counter() - start)
    return version, decode
