"""WebShop: find and buy what a customer asks for, in a shop of scraped pages; in Python alone, equal to the original.

`catalogue` reads the official files, `generated` makes up a shop without them. `goals` says what is asked, `rewards` what
a purchase is worth, `pages` what each page shows and offers. `analysis` and `index` are the search, `shop` puts all that
together and keeps it in files, `environment` is an episode, `world` what the command line sees, `expert` who
demonstrates.
"""

from spark_rl.environments.webshop.environment import WebshopEnvironment
from spark_rl.environments.webshop.world import Webshop

__all__ = ["Webshop", "WebshopEnvironment"]
