"""`python -m tracklearn`, which `torchrun -m tracklearn` needs, is the command line."""

from tracklearn.app.cli import main

if __name__ == "__main__":
    main()
