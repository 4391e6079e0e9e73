"""The configs that ship with Seedbed; a package, so that the console script finds them."""
