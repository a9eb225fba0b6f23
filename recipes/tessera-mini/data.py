#!/usr/bin/env python3
"""Makes the lists of examples that tessera-mini is trained on and scored with (JSON Lines, docs/fine-tuning.md).

    data.py OUT --flickr8k DIR --librispeech DIR --transcripts FILE
    data.py --list-speech DIR       names of 420 recordings to be transcribed for it, one a line

captions.{train,dev}.jsonl   photos with their five captions
questions.{train,dev}.jsonl  photos with questions that rules make of the captions; dev: one question a line
mixed.train.jsonl            all that is trained on: photos with captions and questions, some of them with a recording beside
                             them; recordings with a photo beside them, to be written down; recordings alone
heard.train.jsonl            3,000 of the photos, each with one of 60 recordings beside it
{kind}.dev.jsonl             those of one kind: presence, count, colour, doing, where
speech.dev.jsonl             utterances of speakers that are not trained on
captions-heard, speech-seen  200 of the photos and all of the utterances, with one of the others beside each

FILE is what `tessera transcribe --json` says of the recordings to train with: speech keeps its style (case,
punctuation) by learning from the untouched model's own words.
"""
import argparse
import collections
import glob
import json
import os
import random
import re

DEV_SPEAKERS = {"84", "422", "2803", "2902"}

# What is asked for: its words in captions, singular first, and what else says that it may be there.
THINGS = {
    "dog": "dog dogs puppy puppies poodle terrier collie retriever dachshund greyhound labrador|animal animals",
    "man": "man men guy guys male gentleman|person people someone adult adults",
    "woman": "woman women lady ladies female|person people someone adult adults girl girls",
    "boy": "boy boys|child children kid kids toddler person people baby",
    "girl": "girl girls|child children kid kids toddler person people baby woman women",
    "child": "child children kid kids toddler boy boys girl girls baby|people person",
    "ball": "ball balls football soccer basketball baseball volleyball tennis|game toy",
    "bike": "bike bikes bicycle bicycles bmx cyclist cyclists biker bikers|motorcycle dirtbike",
    "motorcycle": "motorcycle motorcycles motorbike dirtbike motocross|bike bikes biker racer",
    "car": "car cars suv van taxi|vehicle traffic street race",
    "horse": "horse horses|animal",
    "beach": "beach shore seashore|sand ocean sea",
    "water": "water ocean sea lake river pool pond stream creek puddle waves wave surf swimming|beach boat splash splashing",
    "snow": "snow snowy snowboard snowboarder snowboarding ski skier skiing skis skiers sled sledding|ice winter",
    "frisbee": "frisbee frisbees|disc toy",
    "skateboard": "skateboard skateboarder skateboarding skateboards skateboarders|skating skate skater",
    "surfboard": "surfboard surfer surfing surfboards surfers|wave board waves surf",
    "swing": "swing swings swinging|playground",
    "trampoline": "trampoline|",
    "boat": "boat boats canoe kayak kayaker raft sailboat ship|",
    "mountain": "mountain mountains mountainside|hill cliff rock peak climber climbing rocks hike",
    "crowd": "crowd crowds crowded audience|people group",
    "football player": "football|player players game",
    "tent": "tent tents|",
    "guitar": "guitar guitars guitarist|band music instrument",
    "camera": "camera cameras|photographer picture photo photograph",
    "umbrella": "umbrella umbrellas|",
    "rope": "rope ropes|climber climbing leash",
    "bench": "bench benches|",
    "cat": "cat cats kitten|animal",
    "bird": "bird birds duck ducks seagull seagulls pigeons|animal",
    "baby": "baby babies infant toddler|child children kid kids boy girl",
    "helmet": "helmet helmets|bike bikes bicycle biker bikers rider riders racer football player skateboard rollerblading",
    "hat": "hat hats cap caps|helmet",
    "tree": "tree trees|forest woods park woodland",
    "grass": "grass grassy lawn|field park yard meadow green",
    "building": "building buildings|city town street house church sidewalk urban",
    "rock": "rock rocks rocky boulder boulders|cliff mountain climber climbing stone stones",
    "fence": "fence fences|yard gate railing",
    "stick": "stick sticks|branch branches",
    "toy": "toy toys|ball frisbee",
    "slide": "slide slides|playground",
    "chair": "chair chairs|bench seat sitting sits",
    "table": "table tables|restaurant eating bar",
    "sign": "sign signs|street store city",
    "flag": "flag flags|parade",
    "costume": "costume costumes|dressed parade",
    "pool": "pool pools|swimming water swims",
    "street": "street streets|road city sidewalk car cars",
    "wave": "wave waves|surf surfer surfing ocean sea surfboard water",
    "bucket": "bucket buckets|",
    "sled": "sled sleds sledding|snow",
    "kayak": "kayak kayaker kayaking canoe|boat raft",
    "leash": "leash|dog dogs",
    "sunglasses": "sunglasses glasses|",
    "soccer ball": "soccer|ball football",
    "tennis racket": "tennis racket|ball",
}
ACTIONS = {
    "running": "running runs run races racing", "jumping": "jumping jumps jump leaps leaping jumped leap",
    "swimming": "swimming swims swim", "climbing": "climbing climbs climb climber", "riding": "riding rides ride",
    "skateboarding": "skateboarding skateboarder skateboard", "surfing": "surfing surfs surfer",
    "skiing": "skiing skis skier", "playing football": "football", "playing soccer": "soccer",
    "sleeping": "sleeping sleeps asleep", "eating": "eating eats", "dancing": "dancing dances dancers dancer",
    "playing tennis": "tennis", "playing basketball": "basketball", "kissing": "kissing kisses",
    "singing": "singing sings singer",
}
ASK_THING = ["Is there {a} in the picture?", "Is there {a}?", "Is there {a} in the photo?", "Can you see {a}?",
             "Is there {a} in this image?", "Do you see {a}?", "Does the picture show {a}?", "Is {a} in the picture?"]
ASK_ACTION = ["Is anyone {x}?", "Is somebody {x}?", "Is someone {x} in the picture?"]
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
COUNTED = {"dogs": "dog", "men": "man", "women": "woman", "boys": "boy", "girls": "girl", "children": "child",
           "people": "person", "horses": "horse", "kids": "kid"}
COLOURS = "black white brown red blue green yellow orange pink purple grey gray tan golden".split()
COLOURED = ("dog dogs shirt dress jacket coat hat horse car ball bike swimsuit uniform boat helmet shorts pants "
            "sweater cap jersey frisbee").split()
SUBJECTS = "dog dogs man men woman women boy boys girl girls child children people person couple kid kids baby".split()
PLACES = ("snow water beach grass field street pool ocean park sand forest woods mud sidewalk river lake road air "
          "playground stage couch bed yard track").split()


def tidy(text):
    """A caption of Flickr8k as a sentence: 'a dog runs .' -> 'A dog runs.'"""
    text = re.sub(r"\s+", " ", text.strip())
    text = re.sub(r" ([.,;:?!)])", r"\1", text)
    text = re.sub(r" '(s|re|t|ll)\b", r"'\1", text).replace("( ", "(").replace(" n't", "n't").replace(" - ", "-")
    text = text.strip(" .") + "."
    return text[0].upper() + text[1:]


def read_captions(file):
    photos = collections.OrderedDict()
    with open(file, encoding="utf-8") as f:
        for line in f:
            name, text = line.rstrip("\n").split("\t")
            if len(text.strip(' ."')) > 2:
                photos.setdefault(name, []).append(tidy(text))
    return photos


def words_of(captions):
    return [re.findall(r"[a-z']+", c.lower()) for c in captions]


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun if noun not in ("water", "snow") else noun


def mentions(words, names):
    names = set(names)
    return sum(any(w in names for w in caption) for caption in words)


def presence(words):
    """(kind, what, is it there) where the captions leave no doubt."""
    for thing, names in THINGS.items():
        sure, maybe = (part.split() for part in names.split("|"))
        found = mentions(words, sure)
        if found >= 2:
            yield "thing", thing, True
        elif found == 0 and mentions(words, maybe) == 0:
            yield "thing", thing, False
    for action, names in ACTIONS.items():
        found = mentions(words, names.split())
        if found >= 2:
            yield "action", action, True
        elif found == 0:
            yield "action", action, False


def most_common(found, least, share=1.0):
    """The answer that at least `least` captions give and none or few contradict."""
    if not found:
        return None
    (answer, times), total = collections.Counter(found).most_common(1)[0], len(found)
    return answer if times >= least and times >= share * total else None


def how_many(words):
    for plural, noun in COUNTED.items():
        singular = sum(any(w == noun for w in c) for c in words)
        found = [NUMBERS[a] for c in words for a, b, d in zip(c, c[1:], c[2:] + [""])
                 if a in NUMBERS and NUMBERS[a] > 1 and (b == plural or d == plural and b not in NUMBERS)]
        if singular == 0 and (n := most_common(found, 2)):
            yield f"How many {plural} are there?", next(k for k, v in NUMBERS.items() if v == n).capitalize() + "."
        alone = sum(any(a in ("a", "the", "one") and (b == noun or d == noun) for a, b, d in
                        zip(c, c[1:], c[2:] + [""])) for c in words)
        if alone >= 4 and mentions(words, [plural] + [n for n in NUMBERS if n != "one"]) == 0:
            yield f"How many {plural} are there?", "One."


def colours(words):
    for noun in COLOURED:
        found = [a for c in words for a, b in zip(c, c[1:]) if b == noun and a in COLOURS]
        mixed = any(b == "and" and d in COLOURS for c in words for a, b, d in zip(c, c[1:], c[2:]) if a in COLOURS)
        answer = most_common(found, 2)
        if answer and not mixed:
            verb = "are" if noun in ("dogs", "shorts", "pants") else "is"
            for spelling in ("color", "colour"):
                yield f"What {spelling} {verb} the {noun}?", answer.capitalize() + "."


def doing(words):
    for noun in SUBJECTS:
        found = []
        for c in words:
            for i, w in enumerate(c[:-1]):
                if w == noun:
                    nxt = [x for x in c[i + 1:i + 3] if x not in ("is", "are")]
                    if nxt and nxt[0].endswith("ing") and len(nxt[0]) > 4:
                        found.append(nxt[0])
        answer = most_common(found, 2, 0.6)
        if answer:
            yield f"What {'are' if noun in ('dogs', 'men', 'women', 'boys', 'girls', 'children', 'people', 'kids') else 'is'} the {noun} doing?", answer.capitalize() + "."


def where(words):
    found = [(a, d) for c in words for a, b, d in zip(c, c[1:], c[2:])
             if a in ("in", "on", "at", "through") and b in ("the", "a") and d in PLACES]
    answer = most_common([("on" if p in ("beach",) else a, p) for a, p in found if a != "through"], 2, 0.5)
    if answer:
        subject = next((w for c in words for w in c if w in SUBJECTS), None)
        if subject:
            plural = subject in ("dogs", "men", "women", "boys", "girls", "children", "people", "kids")
            yield f"Where {'are' if plural else 'is'} the {subject}?", f"{answer[0].capitalize()} the {answer[1]}."


def questions(photos, random_):
    """{photo: [(kind, question, answer)]}: as many yes as no for each thing that is asked for."""
    asked = collections.defaultdict(list)
    yes, no = collections.defaultdict(list), collections.defaultdict(list)
    for name, captions in photos.items():
        words = words_of(captions)
        for kind, what, there in presence(words):
            (yes if there else no)[kind, what].append(name)
        for kind, rule in (("count", how_many), ("colour", colours), ("doing", doing), ("where", where)):
            asked[name] += [(kind, q, a) for q, a in rule(words)]
    for (kind, what), positive in yes.items():
        negative = random_.sample(no[kind, what], min(len(positive), len(no[kind, what])))
        for names, answer in ((random_.sample(positive, len(negative)), "Yes."), (negative, "No.")):
            for name in names:
                form = random_.choice(ASK_THING if kind == "thing" else ASK_ACTION)
                asked[name].append(("presence", form.format(a=article(what), x=what), answer))
    return asked


def write(path, lines):
    with open(path, "w", encoding="utf-8") as f:
        for line in lines:
            f.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"{path}: {len(lines)}")


def photo_example(image, captions, asked, random_):
    """Two captions, a question, two captions, ...: every few texts hold some of both."""
    asked = random_.sample(asked, len(asked))
    prompts, texts = [], []
    for i in range(max(5, len(asked))):
        prompts += ["", ""]
        texts += [captions[2 * i % len(captions)], captions[(2 * i + 1) % len(captions)]]
        if asked:
            _, question, answer = asked[i % len(asked)]
            prompts.append(random_.choice(["", " "]) + question)
            texts.append(answer)
    return {"image": image, "prompt": prompts, "text": texts}


def training_speech(librispeech):
    files = sorted(f for f in glob.glob(os.path.join(os.path.abspath(librispeech), "*", "*.mp3"))
                   if os.path.basename(f).split("-")[0] not in DEV_SPEAKERS)
    random.Random(1).shuffle(files)
    return files[:420]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?")
    parser.add_argument("--flickr8k")
    parser.add_argument("--librispeech")
    parser.add_argument("--transcripts")
    parser.add_argument("--list-speech", metavar="DIR")
    arguments = parser.parse_args()
    if arguments.list_speech:
        print("\n".join(training_speech(arguments.list_speech)))
        return
    out, random_ = arguments.out, random.Random(1)
    os.makedirs(out, exist_ok=True)
    image = lambda name: os.path.abspath(os.path.join(arguments.flickr8k, "images", name))

    with open(arguments.transcripts, encoding="utf-8") as f:
        speech = [(line["file"], line["text"].strip()) for line in map(json.loads, f)
                  if line["text"].strip() and line["segments"][-1]["end"] <= 20]
    assert not any(s in os.path.basename(f).split("-")[:1] for f, _ in speech for s in DEV_SPEAKERS)

    for part in ("train", "dev"):
        photos = read_captions(os.path.join(arguments.flickr8k, f"captions.{part}.tsv"))
        asked = questions(photos, random_)
        write(f"{out}/captions.{part}.jsonl", [{"image": image(n), "text": c} for n, c in photos.items()])
        if part == "dev":
            lines = [{"image": image(n), "prompt": q, "text": a, "kind": k} for n in photos for k, q, a in asked[n]]
            write(f"{out}/questions.dev.jsonl", lines)
            for kind in ("presence", "count", "colour", "doing", "where"):
                write(f"{out}/{kind}.dev.jsonl", [line for line in lines if line["kind"] == kind])
            continue
        mixed = []
        for n, captions in photos.items():
            example = photo_example(image(n), captions, asked[n], random_)
            if speech and random_.random() < 0.04:
                example["audio"], example["task"] = random_.choice(speech)[0], "caption"
            mixed.append(example)
        for file, text in speech[:160]:
            mixed.append({"audio": file, "image": image(random_.choice(list(photos))), "task": "transcribe", "text": text})
        for file, text in speech[160:240]:
            mixed.append({"audio": file, "task": "prompt", "text": text})
        random_.shuffle(mixed)
        write(f"{out}/mixed.train.jsonl", mixed)
        beside = random.Random(7)
        some = [file for file, _ in speech][:60]
        write(f"{out}/heard.train.jsonl", [{**photo_example(image(n), photos[n], asked[n], beside), "audio": beside.choice(some),
                                            "task": "caption"} for n in beside.sample(sorted(photos), 3000)])

    lines = []
    with open(os.path.join(arguments.librispeech, "transcripts.txt"), encoding="utf-8") as f:
        for line in f:
            name, text = line.rstrip("\n").split(" ", 1)
            speaker = name.split("-")[0]
            if speaker in DEV_SPEAKERS:
                lines.append({"audio": os.path.abspath(os.path.join(arguments.librispeech, speaker, name + ".mp3")),
                              "text": text})
    write(f"{out}/speech.dev.jsonl", lines)
    other = random.Random(3)
    photos = list(read_captions(os.path.join(arguments.flickr8k, "captions.dev.tsv")).items())
    write(f"{out}/captions-heard.dev.jsonl",
          [{"image": image(n), "audio": other.choice(lines)["audio"], "task": "caption", "text": c} for n, c in photos[:200]])
    write(f"{out}/speech-seen.dev.jsonl",
          [{**line, "image": image(other.choice(photos)[0]), "task": "transcribe"} for line in lines])


if __name__ == "__main__":
    main()
