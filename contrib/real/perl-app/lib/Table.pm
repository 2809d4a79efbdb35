package Table;
use strict;
use warnings;
use JSON;
use Text::CSV;

sub to_json {
    my ($handle) = @_;
    my $csv = Text::CSV->new({ binary => 1 });
    my ($names, @rows) = @{ $csv->getline_all($handle) };
    return JSON->new->canonical->encode([map { my %row; @row{@$names} = @$_; \%row } @rows]);
}

1;
