"""TensorFlow Lite for Microcontrollers: plans of its arena, written into .tflite files."""
