#include <stdio.h>

int main(int argc, char **argv)
{
    long lines = 0;
    FILE *file = argc > 1 ? fopen(argv[1], "r") : stdin;
    if (!file)
        return perror(argv[1]), 1;
    for (int c; (c = getc(file)) != EOF;)
        lines += c == '\n';
    printf("%ld lines\n", lines);
}
