"""Text classifiers: a decoder with `score` on the last token."""
import torch
from transformers import GPT2ForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from .common import Checkpoint, case, integers, randomize
from .gpt2 import small


def build(seed, model):
    model = randomize(model, seed, torch.float32)
    ids = [integers(seed, f"text {i}", model.config.vocab_size - 1, count) for i, count in enumerate((9, 4))]
    with torch.no_grad():
        scores = torch.cat([model(torch.tensor([i])).logits for i in ids])
    made = Checkpoint("text-classifier").add_model(model)
    made.add_golden({"first": torch.tensor(ids[0]), "second": torch.tensor(ids[1]), "scores": scores})
    made.notes["labels"] = [model.config.id2label[i] for i in range(model.config.num_labels)]
    return made


NAMES = {"id2label": {0: "bad", 1: "so so", 2: "good"}, "label2id": {"bad": 0, "so so": 1, "good": 2}}


@case("classify-gpt2", "GPT2ForSequenceClassification, three classes with names")
def gpt2_classify(seed):
    return build(seed, GPT2ForSequenceClassification(small(**NAMES, pad_token_id=82)))


@case("classify-llama", "LlamaForSequenceClassification, untied (and no lm_head), four classes without names")
def llama_classify(seed):
    return build(seed, LlamaForSequenceClassification(LlamaConfig(
        vocab_size=61, hidden_size=16, intermediate_size=22, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False, num_labels=4, pad_token_id=0)))
