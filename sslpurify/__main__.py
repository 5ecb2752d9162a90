"""``python -m sslpurify`` is the command line."""

from sslpurify.cli import main

if __name__ == "__main__":
    main()
