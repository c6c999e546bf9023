# A text adventure with no save command: the world is where you left it.
#
#     build/venv/bin/revenant run --near adventure.img --add userland/examples/adventure.py:main.py
#
# "look", "north", "south", "east", "west", "take THING", "drop THING", "carry", "quit". There is a treasure to bring to the gate.

ROOMS = {
    "gate": ("A rusty gate, half open. A path leads north.", {"north": "garden"}),
    "garden": ("Roses, gone wild. A door to the north, an arbour to the east.", {"south": "gate", "north": "hall", "east": "arbour"}),
    "arbour": ("A bench below vines.", {"west": "garden"}),
    "hall": ("Dust, and the stairs of a cellar in the west.", {"south": "garden", "west": "cellar"}),
    "cellar": ("It is dark; without the lamp you see nothing.", {"east": "hall"}),
}


class Game:
    def __init__(self):
        self.room = "gate"
        self.things = {"arbour": ["lamp"], "cellar": ["treasure"], "hall": ["broom"]}
        self.carried = []
        self.turns = 0

    def here(self):
        if self.room == "cellar" and "lamp" not in self.carried:
            return []
        return self.things.setdefault(self.room, [])

    def look(self):
        text = ROOMS[self.room][0]
        for thing in self.here():
            text += " There is a " + thing + "."
        return text

    def take(self, thing):
        if thing not in self.here():
            return "There is no such thing here."
        self.here().remove(thing)
        self.carried.append(thing)
        return "Taken."

    def drop(self, thing):
        if thing not in self.carried:
            return "You do not carry that."
        self.carried.remove(thing)
        self.things.setdefault(self.room, []).append(thing)
        if thing == "treasure" and self.room == "gate":
            return "The gate opens wide. You have won in %d turns." % self.turns
        return "Dropped."

    def obey(self, line):
        self.turns += 1
        word, _, rest = line.strip().lower().partition(" ")
        if word == "look":
            return self.look()
        if word == "carry":
            return ", ".join(self.carried) or "Nothing."
        if word in ("take", "drop"):
            return getattr(self, word)(rest.strip())
        ways = ROOMS[self.room][1]
        if word not in ways:
            return "You cannot do that here."
        self.room = ways[word]
        return self.look()


def play():
    game = Game()
    print(game.look())
    while True:
        line = input("? ")
        if line.strip() == "quit":
            return
        print(game.obey(line))


play()
