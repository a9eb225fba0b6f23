#!/usr/bin/env python3
"""Makes tests/data/retrieval.json: vectors of images and texts, and how they find each other by the code with which
Karpathy and Fei-Fei (2015) and those after them (VSE++, SCAN) score Flickr8k, Flickr30k and COCO: argsort of each row,
the best place of an image's own texts, recall@k and floor(median) + 1. Needs numpy only.
"""
import json
import os

import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/retrieval.json")


def summary(ranks):
    """Ranks from 0 on."""
    return {**{f"recall@{k}": len(np.where(ranks < k)[0]) / len(ranks) for k in (1, 5, 10)},
            "median_rank": int(np.floor(np.median(ranks)) + 1)}


def score(images, texts, owners):
    i2t, t2i = np.zeros(len(images), int), np.zeros(len(texts), int)
    for i, image in enumerate(images):
        order = np.argsort(image @ texts.T)[::-1]
        i2t[i] = min(np.where(order == t)[0][0] for t in np.flatnonzero(owners == i))
    for t, text in enumerate(texts):
        order = np.argsort(text @ images.T)[::-1]
        t2i[t] = np.where(order == owners[t])[0][0]
    return i2t, t2i


def case(seed, count, width, noise, most):
    """Some images with several texts, each near its image."""
    r = np.random.default_rng(seed)
    images = r.standard_normal((count, width))
    owners = np.repeat(np.arange(count), r.integers(1, most + 1, count))
    r.shuffle(owners)
    texts = images[owners] + noise * r.standard_normal((len(owners), width))
    images, texts = (np.round(x / np.linalg.norm(x, axis=1, keepdims=True), 5) for x in (images, texts))
    i2t, t2i = score(images, texts, owners)
    return {"width": width, "images": images.ravel().tolist(), "texts": texts.ravel().tolist(), "owners": owners.tolist(),
            "image_to_text": {"ranks": (i2t + 1).tolist(), **summary(i2t)},
            "text_to_image": {"ranks": (t2i + 1).tolist(), **summary(t2i)}}


def main():
    cases = [case(1, 30, 5, 0.7, 5), case(2, 70, 4, 1.0, 1), case(3, 7, 3, 0.3, 3)]
    with open(OUT, "w", encoding="utf-8") as f:
        json.dump(cases, f)
        f.write("\n")


if __name__ == "__main__":
    main()
