import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public class Words {
    record Count(String word, long times) {}

    public static void main(String[] args) {
        Stream.of(args)
            .collect(Collectors.groupingBy(word -> word, TreeMap::new, Collectors.counting()))
            .forEach((word, times) -> System.out.println(new Count(word, times)));
    }
}
