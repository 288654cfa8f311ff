"""The portal: it reads, follows the events, and shows."""
