"""The page of `synth demo`: widgets to conditions, samples to pictures and files. Samples are Generator.generate's."""
