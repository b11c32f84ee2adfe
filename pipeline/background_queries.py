"""A fixed bank of plain questions on wide topics: what a library is asked that has no particular answer in it.

The sentences are put together from subjects, actions and places that go together, in the forms in which people ask:
a thing, a thing that does something, a thing somewhere, all three. No random numbers: the bank is part of the code,
and :func:`bank_version` changes with every letter of it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

__all__ = ["background_queries", "bank_version"]

_TURNS = 2  # how often each subject is used; each sentence is encoded once for each library and model

# subjects / actions / places, of one topic each
_TOPICS = """
a boy, a girl in a red dress, a small child, a toddler, a group of kids
runs, laughs, jumps, plays with a ball, draws with chalk
in a playground, on a lawn, in a schoolyard, on a trampoline, in the snow

a man in a blue shirt, an old woman, a young couple, a woman with a hat, a man with a beard
walks, sits on a bench, talks on the phone, takes a photo, waits
on a street, in a park, beside a fountain, at a bus stop, in front of a shop

a brown dog, a black puppy, a white dog, a spotted dog, a dog with a stick
runs, swims, catches a frisbee, digs, shakes off water
on a beach, through tall grass, in a garden, over a field, on a path

a cat, a grey kitten, a rabbit, a parrot, a hamster
sleeps, stretches, eats, looks at the camera, climbs
on a sofa, in a basket, on a window sill, in a cage, under a table

a horse, a herd of cows, a flock of sheep, a goat, a chicken
grazes, trots, stands still, drinks, is fed
in a meadow, behind a fence, beside a barn, on a hill, in a stable

an elephant, a lion, a brown bear, a giraffe, a monkey
walks past, rests, drinks water, shows its teeth, crosses a road
in the savannah, in a forest, in a zoo, beside a river, on a rock

a bird, an eagle, a swan, a swarm of bees, a butterfly
flies, lands, spreads its wings, feeds, flutters
over a lake, on a branch, above the clouds, on a flower, at the seaside

a shark, a school of fish, a turtle, a whale, a jellyfish
swims, dives, drifts, comes up for air, turns around
under water, in an aquarium, over a reef, in the open sea, near a boat

a red car, a taxi, a delivery van, a police car, an old sports car
drives by, turns left, parks, brakes, overtakes
on a highway, in a tunnel, at a crossing, in the rain, in a car park

a train, a tram, a yellow bus, a motorcycle, a lorry
arrives, stops, leaves, goes uphill, is washed
at a station, over a bridge, in the city, at a depot, through a valley

a plane, a helicopter, a hot air balloon, a drone, a rocket
takes off, lands, hovers, circles, crashes
at an airport, over mountains, above a city, in the desert, against a blue sky

a sailing boat, a ferry, a canoe, a surfer, a cargo ship
glides, turns, capsizes, rides a wave, enters
on the ocean, in a harbour, on a river, near the coast, in a storm

a football player, a tennis player, a basketball team, a goalkeeper, a runner
scores, falls, celebrates, warms up, throws
in a stadium, on a court, in a gym, on a track, in front of a crowd

a skier, a snowboarder, an ice skater, a climber, a cyclist
jumps, slides down, races, falls over, does a trick
on a slope, on a frozen lake, on a cliff, on a mountain trail, in a half pipe

a chef, a waiter, a woman in an apron, a barista, a baker
cuts vegetables, pours coffee, stirs a pot, serves a dish, kneads dough
in a kitchen, in a restaurant, at a counter, at a market stall, in a bakery

a pizza, a bowl of fruit, a birthday cake, a glass of milk, a plate of noodles
is cut, burns, is decorated, falls down, is eaten
on a table, in an oven, on a tray, at a picnic, in a fridge

a guitarist, a drummer, a choir, a dancer, a violinist
plays, sings, spins, bows, tunes up
on a stage, in a concert hall, at a wedding, in a studio, on a square

a teacher, a student, a speaker, a doctor, a nurse
points at a screen, writes, explains, shakes hands, reads
in a classroom, in a hospital, at a conference, in a library, at a desk

a worker in a helmet, a welder, a farmer, a carpenter, an excavator
digs, lifts a beam, saws wood, carries boxes, checks a machine
on a building site, in a factory, in a field, in a workshop, in a warehouse

a laptop, a robot arm, a printer, a mobile phone, a slide with a diagram
lights up, moves, is repaired, shows text, is switched off
in an office, on a workbench, in a laboratory, in a shop window, on a shelf

a waterfall, a rainbow, a snowy mountain, a volcano, a sunset
appears, glows, freezes, is covered by clouds, is reflected in water
in a valley, behind trees, above the sea, in the distance, at dawn

a tree, a field of sunflowers, a cactus, a red rose, an autumn leaf
sways in the wind, falls, blooms, is watered, is cut down
in a garden, beside a road, in a greenhouse, on a balcony, in the fog

a church, a skyscraper, a wooden bridge, a lighthouse, a castle
is seen from above, is lit at night, is under construction, collapses, stands empty
in a city, on an island, beside a canal, in the mountains, in a village

a fire, thick smoke, an explosion, a flood, lightning
spreads, is put out, flashes, blocks the road, destroys a house
in a forest, in a street, at night, in a factory, over the sea

an empty room, a red sofa, a bathroom mirror, a staircase, a lamp
is cleaned, is painted, falls over, stands in a corner, is switched on
in a house, in a hotel, in a museum, in an attic, in a dark hallway

a knight with a sword, an astronaut, a clown, a cartoon animal, a puppet
fights, waves, floats, chases somebody, takes off a mask
in a castle, in space, in a circus, in a film, on a planet

a close-up of an eye, a hand, a face with glasses, a pair of shoes, a tattoo
moves, is drawn, is washed, is shown, is covered
in a mirror, in black and white, against a wall, in soft light, on a screen

a clock, a coin, a chess board, a map, a newspaper
falls, spins, is folded, is turned over, lies still
on a table, in a hand, in a drawer, on the floor, on a wall
"""


@lru_cache(maxsize=1)
def background_queries() -> tuple[str, ...]:
    """The bank: a few hundred different sentences, in a fixed order."""
    found: dict[str, None] = {}
    for topic in _TOPICS.strip().split("\n\n"):
        subjects, actions, places = ([part.strip() for part in line.split(",")] for line in topic.split("\n"))
        for turn in range(_TURNS):
            for i, subject in enumerate(subjects):
                action, place = actions[(i + turn) % len(actions)], places[(i + 2 * turn) % len(places)]
                form = (subject, f"{subject} {action}", f"{subject} {place}", f"{subject} {action} {place}")
                found[form[(i + turn) % len(form)]] = None
    return tuple(found)


@lru_cache(maxsize=1)
def bank_version() -> str:
    """A short digest of the bank."""
    return blake2b("\n".join(background_queries()).encode(), digest_size=8).hexdigest()
