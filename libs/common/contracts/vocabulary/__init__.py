"""The words of the channels: for each touchpoint type its properties, when to post it, and an example."""
