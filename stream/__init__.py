"""The way of a frame: source process, ring, guard, engine process, publisher, subscribers, displays."""
