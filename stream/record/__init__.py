"""Recording a running stream: a client that keeps its frames, and what is made of them."""
