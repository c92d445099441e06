"""UDnet itself: the model, its weights, what is made from them, its graph. Rests on pictures."""
