"""What can be embedded with: the network of a run, or one in an .onnx file."""
