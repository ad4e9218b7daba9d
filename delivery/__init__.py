"""What CI and CD do, as programs that run on a laptop too: the report, images, rollouts, a cluster on this machine."""
