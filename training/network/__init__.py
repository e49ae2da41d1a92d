"""The long training run of the bundled network: where it lives, what keeps it going, what it says about itself."""
