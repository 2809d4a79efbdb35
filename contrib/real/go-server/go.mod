module example.org/whoami

go 1.19
