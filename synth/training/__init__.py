"""Training: one exact, resumable loop, and what each stage feeds it. Knows no dataset layout and no command."""
