const isNumber = require('is-number');
const words = process.argv.slice(2);
console.log(`${words.filter((word) => isNumber(word)).length} of ${words.length} are numbers (${process.env.NODE_ENV})`);
