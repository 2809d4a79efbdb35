import sys
from collections import Counter

from tabulate import tabulate


def main():
    print(tabulate(sorted(Counter(sys.argv[1:]).items()), tablefmt="plain"))
