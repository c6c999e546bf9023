# A notebook that is one dict: what was noted stays, and nothing is ever written to a file.
#
#     build/venv/bin/revenant run --near notes.img --add userland/examples/notes.py:main.py
#
# Type a note; "#word" in it is a tag. "?word" finds notes, "?" lists the tags, "-3" forgets note 3, "!" leaves.

import time


class Notes:
    def __init__(self):
        self.notes = {}
        self.next = 1

    def add(self, text):
        number = self.next
        self.next += 1
        self.notes[number] = (time.time(), text)
        return "noted as %d" % number

    def find(self, word):
        return "\n".join("%d: %s" % (number, text) for number, (_, text) in sorted(self.notes.items()) if word in text) or "nothing"

    def tags(self):
        count = {}
        for _, text in self.notes.values():
            for word in text.split():
                if word.startswith("#"):
                    count[word] = count.get(word, 0) + 1
        return ", ".join("%s (%d)" % item for item in sorted(count.items())) or "no tags"

    def forget(self, number):
        return "forgotten" if self.notes.pop(int(number), None) else "there is no such note"

    def obey(self, line):
        if line == "?":
            return self.tags()
        if line.startswith("?"):
            return self.find(line[1:].strip())
        if line.startswith("-") and line[1:].isdigit():
            return self.forget(line[1:])
        return self.add(line) if line else ""


def serve():
    notes = Notes()
    while True:
        line = input("note> ").strip()
        if line == "!":
            return
        print(notes.obey(line))


serve()
