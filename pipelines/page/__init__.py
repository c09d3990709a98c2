"""The page of `synth demo`: widgets to conditions, samples to pictures and files. Every sample is Generator.generate's."""
