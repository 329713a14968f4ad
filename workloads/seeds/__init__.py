"""The characteristic computations of the papers that memplan grew from; `docs/seeds.md` lists them all."""
