"""llama.cpp through llama-cpp-python's bindings: GGUF files made by to_gguf.py."""
import time

import llama_cpp as lc
import numpy as np


def prepare(work, arguments):
    lc.llama_backend_init()
    model = lc.llama_model_load_from_file(arguments.checkpoint.encode(), lc.llama_model_default_params())
    options = lc.llama_context_default_params()
    options.n_ctx = arguments.prefill + arguments.decode + 64
    options.n_batch = options.n_ubatch = arguments.prefill
    options.n_threads = options.n_threads_batch = arguments.threads
    context = lc.llama_init_from_model(model, options)
    count = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    prompt = (lc.llama_token * arguments.prefill)(*(i * 7919 % count for i in range(arguments.prefill)))
    memory = lc.llama_get_memory(context)

    def run(tokens, n):
        if lc.llama_decode(context, lc.llama_batch_get_one(tokens, n)) != 0:
            raise RuntimeError("llama_decode failed")
        return int(np.ctypeslib.as_array(lc.llama_get_logits_ith(context, -1), (count,)).argmax())

    def prefill():
        lc.llama_memory_clear(memory, True)
        start = time.perf_counter()
        run(prompt, arguments.prefill)
        return 1e3 * (time.perf_counter() - start)

    def decode():
        lc.llama_memory_seq_rm(memory, 0, arguments.prefill, -1)
        token = 1
        start = time.perf_counter()
        for _ in range(arguments.decode):
            token = run((lc.llama_token * 1)(token), 1)
        return 1e3 * (time.perf_counter() - start)

    prefill()
    version = f"llama.cpp ({lc.__version__} of its Python package)"
    return version, prefill if work == "prefill" else decode
