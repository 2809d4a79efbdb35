use Test::More tests => 1;
use Table;
open my $csv, '<', \"a\n1\n";
is Table::to_json($csv), '[{"a":"1"}]';
