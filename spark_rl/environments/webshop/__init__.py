"""WebShop: find and buy a product for a customer, in a shop of scraped pages; in Python alone, equal to the original.

`catalogue` reads the official files, `generated` generates a shop without them. `goals` has the customers' goals, `rewards`
the score of a purchase, `pages` the text and clickable words of each page. `analysis` and `index` are the search, `shop`
joins all these parts and stores them in files, `environment` is an episode, `world` has the options, and `expert`
demonstrates.
"""

from spark_rl.environments.webshop.environment import WebshopEnvironment
from spark_rl.environments.webshop.world import Webshop

__all__ = ["Webshop", "WebshopEnvironment"]
