use Table;
print Table::to_json(\*STDIN), "\n";
