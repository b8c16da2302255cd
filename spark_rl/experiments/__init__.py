"""Many runs at once: algorithms side by side (`compare`), and the paper's tables (`paper`)."""
