"""Class names and colours of the data sets, as the data sets' authors give them. Needs numpy alone.

Names and colours are facts about the data, kept in the order of the training labels:

- Cityscapes: the 19 train classes of cityscapesscripts (helpers/labels.py).
- CamVid: the 32 official classes with their colours (Brostow, Fauqueur, Cipolla, "Semantic object classes in video",
  2009) and SegNet's 11 groups of them, in the order of SegNet's labels.
- ADE20K: the 150 names of objectInfo150 and the colours of color150.mat, both by CSAIL (sceneparsing).
- COCO-Stuff: the 171 names of nightrome/cocostuff (labels.txt without the 11 classes that no image has), in the order
  that PaddleSeg's converted labels use. It has no official palette.
"""

import numpy as np


def _split(names: str) -> list[str]:
    return " ".join(names.split()).split(", ")


CITYSCAPES: dict[str, tuple[int, int, int]] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

# Each of the 11 classes carries the colour of the official class that gave it its name.
CAMVID: dict[str, tuple[int, int, int]] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 255

# The 32 official CamVid classes: colour in the label images, and SegNet's group (VOID: not scored). The groups are
# those that MathWorks publishes as SegNet's (camvidPixelLabelIDs), and the same as in the README of MCANet.
CAMVID_32: dict[str, tuple[tuple[int, int, int], int]] = {
    "Animal": ((64, 128, 64), 9),
    "Archway": ((192, 0, 128), 1),
    "Bicyclist": ((0, 128, 192), 10),
    "Bridge": ((0, 128, 64), 1),
    "Building": ((128, 0, 0), 1),
    "Car": ((64, 0, 128), 8),
    "CartLuggagePram": ((64, 0, 192), 9),
    "Child": ((192, 128, 64), 9),
    "Column_Pole": ((192, 192, 128), 2),
    "Fence": ((64, 64, 128), 7),
    "LaneMkgsDriv": ((128, 0, 192), 3),
    "LaneMkgsNonDriv": ((192, 0, 64), 3),
    "Misc_Text": ((128, 128, 64), 6),
    "MotorcycleScooter": ((192, 0, 192), 10),
    "OtherMoving": ((128, 64, 64), 8),
    "ParkingBlock": ((64, 192, 128), 4),
    "Pedestrian": ((64, 64, 0), 9),
    "Road": ((128, 64, 128), 3),
    "RoadShoulder": ((128, 128, 192), 4),
    "Sidewalk": ((0, 0, 192), 4),
    "SignSymbol": ((192, 128, 128), 6),
    "Sky": ((128, 128, 128), 0),
    "SUVPickupTruck": ((64, 128, 192), 8),
    "TrafficCone": ((0, 0, 64), 2),
    "TrafficLight": ((0, 64, 64), 6),
    "Train": ((192, 64, 128), 8),
    "Tree": ((128, 128, 0), 5),
    "Truck_Bus": ((192, 128, 192), 8),
    "Tunnel": ((64, 0, 64), 1),
    "VegetationMisc": ((192, 192, 0), 5),
    "Void": ((0, 0, 0), VOID),
    "Wall": ((64, 192, 0), 1),
}

ADE20K_NAMES = _split(
    """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
    door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug,
    field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column,
    signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
    stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee
    table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair,
    boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
    television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle,
    buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool,
    barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave,
    pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
    ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
    """
)

# "787878" is (120, 120, 120): the 150 colours in the order of the names.
ADE20K_COLOURS = """
    787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33
    ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
    08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff
    eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
    0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad
    0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
    00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa
    8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
    ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff
    00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
""".split()

COCO_STUFF_NAMES = _split(
    """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
    skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple,
    sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining
    table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink,
    refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, banner, blanket, branch,
    bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes,
    clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
    floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel,
    ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper,
    pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof,
    rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw,
    structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other,
    wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
    """
)

# StreetScenes is labelled in Cityscapes' classes.
_NAMES: dict[str, list[str]] = {
    "Cityscapes": list(CITYSCAPES),
    "StreetScenes": list(CITYSCAPES),
    "CamVid": list(CAMVID),
    "ADE20K": ADE20K_NAMES,
    "CocoStuff": COCO_STUFF_NAMES,
}
_COLOURS: dict[str, list[tuple[int, ...]]] = {
    "Cityscapes": list(CITYSCAPES.values()),
    "StreetScenes": list(CITYSCAPES.values()),
    "CamVid": list(CAMVID.values()),
    "ADE20K": [tuple(bytes.fromhex(colour)) for colour in ADE20K_COLOURS],
}


def _type_name(dataset: object) -> str:
    return dataset if isinstance(dataset, str) else type(dataset).__name__


def class_names(dataset: object, num_classes: int) -> list[str]:
    """Return the names of a data set's classes.

    Args:
        dataset: A data set, or the name of its type as configs write it ("Cityscapes", "CamVid", ...).
        num_classes: Number of classes of the network.

    Returns:
        `num_classes` names; "class 0", "class 1", ... where the type or the number is unknown.
    """
    names = _NAMES.get(_type_name(dataset), [])
    return list(names) if len(names) == num_classes else [f"class {index}" for index in range(num_classes)]


def palette(dataset: object, num_classes: int) -> np.ndarray:
    """Return the colours of a data set's classes.

    Args:
        dataset: A data set, or the name of its type as configs write it.
        num_classes: Number of classes of the network.

    Returns:
        RGB colours, uint8: the data set's own, or those of Pascal VOC where it has none or the number is another.

    Shape:
        [num_classes, 3]
    """
    colours = _COLOURS.get(_type_name(dataset), [])
    return np.array(colours, np.uint8) if len(colours) == num_classes else _voc_palette(num_classes)


def _voc_palette(num_classes: int) -> np.ndarray:
    """Return Pascal VOC's colours 1 to `num_classes`: bit 3k + c of the index is bit 7 - k of channel c.

    Class i has VOC's colour i + 1, as in PaddleSeg's images: colour 0, black, is for pixels that are not labelled.
    """
    index = np.arange(1, num_classes + 1)
    colours = np.zeros((num_classes, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)
