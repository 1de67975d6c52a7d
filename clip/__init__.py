"""Deep Correlated Prompting on a frozen CLIP, for image and text with missing modalities."""
