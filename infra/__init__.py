"""Everything that touches the world: store, bus, assets, settings, and the wiring of it all."""
