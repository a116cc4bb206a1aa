"""Words of the titles in the simulated catalogue: a series is named by two, as in "The Ember Crown"."""

from __future__ import annotations

# Each category: the first words of its titles, then the second words.
_SERIES = """
Adventure: The Lost, The Farthest, Beyond the, The Sunken, The Red, Above the, The Last
    Island, Caravan, Compass, River, Temple, Horizon, Lagoon
Crime: Death at, Murder in, A Body in, The Thief of, The Secret of, Nightfall over, Poison at
    Marlow House, Harbour Lane, the Grand Hotel, Foxley, the Opera, Blackwater, St. Brendan's
Fantasy: The Ember, The Silver, The Hollow, The Winter, The Raven, The Thorn, The Moonlit
    Crown, Tower, Gate, Throne, Blade, Prophecy, Kingdom
Food: The Green, The Slow, The Simple, The Seaside, The Village, The Sunday, The Spice
    Kitchen, Table, Bakery, Feast, Larder, Cook, Supper
Gardens: The Wild, The Walled, The Quiet, The Bee, The Rose, The Orchard, The Shade
    Garden, Meadow, Year, Border, Keeper, Almanac, Path
History: The Age of, The Fall of, The Rise of, Letters from, The Road to, Kings of, The Salt of
    Venice, Carthage, Byzantium, Samarkand, Lisbon, Novgorod, Alexandria
Horror: The Whispering, The Pale, The Crooked, The Drowned, The Nameless, The Buried, The Ashen
    House, Chapel, Mirror, Cellar, Choir, Marsh, Guest
Romance: Summer in, A Letter to, Dancing in, The Bookshop in, Springtime in, Return to, Love in
    Tuscany, Cornwall, Verona, Vienna, Kyoto, Havana, Galway
Science: The Hidden, The Curious, The Elegant, The Restless, The Tiny, The Deep, The Living
    Universe, Cell, Ocean, Number, Atom, Mind, Forest
Space: The Orion, The Titan, The Andromeda, The Vega, The Kepler, The Callisto, The Cygnus
    Gambit, Station, Signal, Drift, Accord, Colony, Relay
Travel: Walking the, Sailing the, Crossing the, By Train to the, Cycling the, Winter on the, Along the
    Silk Road, Andes, Danube, Hebrides, Sahara, Baltic, Alps
Westerns: Riders of, Gold at, The Sheriff of, Dust over, The Outlaws of, Showdown at, Thunder over
    Silver Creek, Dry Fork, Cimarron, Eagle Pass, Red Mesa, Coyote Wells, Lone Pine
"""


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.strip().split(", "))


_LINES = _SERIES.strip().splitlines()
CATEGORIES = tuple(line.split(": ")[0] for line in _LINES[::2])
FIRST_WORDS = {name: _words(line.split(": ")[1]) for name, line in zip(CATEGORIES, _LINES[::2], strict=True)}
SECOND_WORDS = {name: _words(line) for name, line in zip(CATEGORIES, _LINES[1::2], strict=True)}
